"""Results as HTML: a table with bars for a notebook, in the colors of its theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from . import verdict
from .tables import (
    comparison_cells,
    comparison_texts,
    comparison_verdict,
    notes_of,
    residual_of,
    runs_of,
    summary_of,
    trends_of,
    verdict_of,
)
from .text import decimal, plural, signed

if TYPE_CHECKING:
    from .records import Site
    from .results import Measurement, Plan

STYLE = """
.idealgroups { font: 13px/1.45 system-ui, sans-serif; max-width: 60em; }
.idealgroups table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4em 0; }
.idealgroups th, .idealgroups td { text-align: right; padding: .1em .7em; border: 0; background: none; }
.idealgroups th:first-child, .idealgroups td:first-child { text-align: left; overflow-wrap: anywhere; }
.idealgroups thead th { border-bottom: 1px solid rgba(128, 128, 128, .6); vertical-align: bottom; }
.idealgroups tbody tr { background: none; border-bottom: 1px solid rgba(128, 128, 128, .2); }
.idealgroups tbody tr.changed { background: rgba(230, 159, 0, .18); }
.idealgroups .bar { position: relative; display: inline-block; width: 7em; height: .85em; vertical-align: -.1em; }
.idealgroups .bar i { position: absolute; top: 0; bottom: 0; background: #4a90c4; border-radius: 2px; }
.idealgroups .bar b { position: absolute; top: -.1em; bottom: -.1em; width: 1px; background: rgba(128, 128, 128, .8); }
.idealgroups p { margin: .3em 0; }
.idealgroups .small { opacity: .8; }
""".strip()


def plan_html(plan: Plan) -> str:
    """Return a plan as a part of a page: the table, then what was found, then the verdict."""
    texts = [*summary_of(plan), *(f"note: {note}" for note in notes_of(plan.sites))]
    texts += [f"not understood: {miss.name or 'the model'} {miss.why}" for miss in plan.not_understood]
    if plan.measured_share is not None and plan.measured_share < 0.995:
        texts.append(verdict.share(plan.measured_share))
    if plan.samples_coupled is not None:
        texts.append(verdict.coupling(plan.samples_coupled))
    return _part(plan_table(plan), texts, verdict_of(plan))


def measurement_html(measurement: Measurement) -> str:
    """Return a measurement as a part of a page."""
    texts = [
        f"{measurement.model} on {measurement.input}: trend of log u {signed(measurement.trend)}, spread "
        f"{decimal(measurement.spread, 2)} over {plural(len(measurement.layers), 'weight layer')}"
    ]
    if measurement.silent:
        more = ", …" if len(measurement.silent) > 5 else ""
        texts.append(f"no gradient: {', '.join(measurement.silent[:5])}{more}")
    return _part(measurement_table(measurement), texts, verdict.measured(measurement.trend))


def comparison_html(plans: Sequence[Plan]) -> str:
    """Return a comparison as a part of a page; the row of the plan to take is bold."""
    header, cells = comparison_cells(plans)
    take = verdict.chosen([trends_of(plan) for plan in plans])
    rows = [
        ([f"<strong>{escape(cell)}</strong>" if index == take else escape(cell) for cell in row], "")
        for index, row in enumerate(cells)
    ]
    return _part(_table(header, rows), comparison_texts(plans), comparison_verdict(plans))


def ranges_html(header: Sequence[str], rows: Sequence[Sequence[str]], text: str) -> str:
    """Return the table of several plans of one network as a part of a page, with what it shows."""
    return _part(_table(header, [([escape(cell) for cell in row], "") for row in rows]), [text])


def plan_table(plan: Plan) -> str:
    """Return the table of a plan. Bars are logarithmic; rows are highlighted where a group norm gets another number."""
    grouped = any(site.groups_before is not None for site in plan.sites)
    fitted = any(site.residual is not None for site in plan.sites)
    most = max(site.num_groups for site in plan.sites)
    header = ["layer", "channels", *(["before"] if grouped else []), "groups", "", "group size"]
    rows = []
    for run in runs_of(plan.sites):
        site = run[0]
        cells = [_name(run), str(site.num_channels)]
        if grouped:
            cells.append("–" if site.groups_before is None else str(site.groups_before))
        cells += [f"<strong>{site.num_groups}</strong>", _bar(0, _share(site.num_groups, most)), str(site.group_size)]
        if fitted:
            cells.append(residual_of(run))
        changed = site.groups_before not in (None, site.num_groups)
        rows.append((cells, "changed" if changed else ""))
    return _table([*header, *(["residual"] if fitted else [])], rows)


def measurement_table(measurement: Measurement) -> str:
    """Return one row for every weight layer; a bar reaches from the mean of log u to its value."""
    logs = [math.log(one.relative) if one.relative > 0 else math.nan for one in measurement.layers]
    finite = [value for value in logs if math.isfinite(value)]
    mean = sum(finite) / len(finite) if finite else 0.0
    most = max((abs(value - mean) for value in finite), default=1.0) or 1.0
    rows = []
    for layer, value in zip(measurement.layers, logs, strict=True):
        away = value - mean
        low, high = sorted((0.5, 0.5 + 0.5 * away / most))
        bar = "" if math.isnan(away) else _bar(low, high, middle=True)
        factor = "–" if math.isnan(away) else f"×{math.exp(away):.2g}"
        rows.append(([escape(layer.name), f"{layer.relative:.3g}", signed(away), bar, factor], ""))
    return _table(["weight layer", "u", "log u − mean", "", "u / mean"], rows)


def _part(table: str, texts: Sequence[str], said: str = "") -> str:
    paragraphs = "".join(f'<p class="small">{escape(text)}</p>' for text in texts)
    last = f"<p><strong>verdict: {escape(said)}</strong></p>" if said else ""
    return f'<div class="idealgroups"><style>{STYLE}</style>{table}{paragraphs}{last}</div>'


def _table(header: Sequence[str], rows: Sequence[tuple[Sequence[str], str]]) -> str:
    """Return a table; the cells are HTML already."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for cells, kind in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _name(run: Sequence[Site]) -> str:
    first, last = (site.name or "(the model)" for site in (run[0], run[-1]))
    return escape(first if len(run) == 1 else f"{first} … {last} ({len(run)})")


def _share(number: int, most: int) -> float:
    """How much of a bar's width a number takes on a logarithmic scale; 1 takes a little too."""
    return (math.log2(number) + 0.5) / (math.log2(most) + 0.5)


def _bar(low: float, high: float, middle: bool = False) -> str:
    line = '<b style="left:50%"></b>' if middle else ""
    return f'<span class="bar"><i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>{line}</span>'
