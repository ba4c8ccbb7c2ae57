"""A plan as one HTML file to share: nothing is loaded from anywhere else, and every name is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from .extras import require
from .markup import STYLE as TABLE_STYLE
from .markup import plan_table
from .tables import notes_of, summary_of, verdict_of
from .verdict import coupling, share

if TYPE_CHECKING:
    from .results import Plan

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --faint: #8c959f; --paper: #ffffff; --before: #d55e00;
  --after: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --faint: #7d8590; --paper: #0d1117; --before: #f0883e; --after: #58a6ff; }
}
body { margin: 0 auto; padding: 1.2em; max-width: 62em; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4em; overflow-wrap: anywhere; } h2 { font-size: 1.1em; margin-top: 2em; }
.verdict { border-left: .4em solid var(--after); padding: .5em 1em; background: rgba(128, 128, 128, .12); }
.wide { overflow-x: auto; } .wide svg { width: 100%; max-width: 46em; height: auto; }
pre { overflow-x: auto; padding: .8em; background: rgba(128, 128, 128, .12); }
dt { font-weight: 600; } dd { margin: 0 0 .5em 0; } footer { margin-top: 2em; color: var(--faint); font-size: .85em; }
.idealgroups { font-size: 14px; max-width: none; }
@media (max-width: 40em) { body { padding: .7em; } .wide svg { min-width: 27em; }
  .idealgroups th, .idealgroups td { padding: .1em .3em; } .idealgroups { font-size: 12px; }
  .idealgroups td:first-child { min-width: 10em; }
  .idealgroups .bar { width: 3.5em; } }
@media print { .wide { overflow: visible; } .wide svg { min-width: 0; } }
""".strip()

GROUPS = (
    ("groups", "How many groups group norm divides the channels of the layer into."),
    ("group size", "The channels of one group."),
)
TREND = (
    ("u, the relative gradient", "The size of a weight's gradient over the size of the weight, at initialization."),
    (
        "trend",
        "How much log u rises from the first weight layer to the last, by a robust line. Zero is isometric; −1 means "
        "that the first layers have gradients 2.7 times as large as the last.",
    ),
    ("limit", "The lowest trend that the rule allows. It takes as many groups as the limit lets it."),
)
RESIDUAL = (
    "residual",
    "What calibration could not fit: the squared error against the trained layer's output, as a share of its variance.",
)


def report(plan: Plan) -> str:
    """Return a whole page about a plan.

    Raises:
        IdealGroupsError: matplotlib is not installed.
    """
    require("matplotlib", "plots", "'idealgroups[plot]'")
    from .pictures.figures import plan_caption, plan_figure
    from .pictures.style import to_svg

    title = f"Groups for {plan.model}"
    first, *others = summary_of(plan)
    texts = [*others, *(f"note: {note}" for note in notes_of(plan.sites))]
    if plan.measured_share is not None and plan.measured_share < 0.995:
        texts.append(share(plan.measured_share))
    if plan.samples_coupled is not None:
        texts.append(coupling(plan.samples_coupled))
    words = [*GROUPS, *([RESIDUAL] if plan.calibrated_on is not None else TREND)]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(first)}</p>",
        f'<p class="verdict"><strong>{escape(verdict_of(plan))}</strong></p>',
        *(f"<p>{escape(text)}</p>" for text in texts),
        _not_understood(plan),
        f'<h2>Over depth</h2><div class="wide">{to_svg(plan_figure(plan, captioned=False))}</div>',
        f"<p>{escape(plan_caption(plan))}</p>",
        f'<h2>Layer by layer</h2><div class="wide idealgroups">{plan_table(plan)}</div>',
        f"<p>Bars are logarithmic. {_highlighted(plan)}</p>",
        f"<h2>How to apply it</h2>{_apply(plan)}",
        "<h2>Words</h2><dl>"
        + "".join(f"<dt>{escape(word)}</dt><dd>{escape(means)}</dd>" for word, means in words)
        + "</dl>",
        f"<footer>{escape(_made(plan))}</footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{TABLE_STYLE}\n{STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _not_understood(plan: Plan) -> str:
    if not plan.not_understood:
        return ""
    items = "".join(
        f"<li><code>{escape(miss.name or 'the model')}</code> {escape(miss.why)}</li>" for miss in plan.not_understood
    )
    return f"<h2>Not understood</h2><ul>{items}</ul>"


def _highlighted(plan: Plan) -> str:
    if any(site.groups_before not in (None, site.num_groups) for site in plan.sites):
        return "Highlighted: layers that get another number of groups."
    return ""


def _apply(plan: Plan) -> str:
    if plan.calibrated_on is not None:
        code = (
            "import idealgroups as ig\n\n"
            "model = ig.restore(model, weights)   # the file of the converted weights, which carries these numbers"
        )
    else:
        code = (
            "import idealgroups as ig\n\n"
            'plan = ig.Plan.load("plan.json")     # written by plan.save or by --save\n'
            "model = ig.apply(model, plan)        # before training, before DDP and torch.compile"
        )
    rows = "\n".join(f"{site.name or '(the model)'}: {site.num_groups}" for site in plan.sites)
    every = f"<details><summary>Every number of groups</summary><pre>{escape(rows)}</pre></details>"
    return f"<pre>{escape(code)}</pre>{every}"


def _made(plan: Plan) -> str:
    parts = [plan.made_with, f"seed {plan.seed}", f"optimizer {plan.optimizer}"]
    if plan.fingerprint:
        parts.append(f"network {plan.fingerprint}")
    return "Made with " + ", ".join(part for part in parts if part) + "."
