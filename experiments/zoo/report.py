"""report.md from the records."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np

from ..common.first_rule import ISOMETRY_TOLERANCE, MAX_BUDGET, POSITION_TOLERANCE
from ..common.markdown import replace_section, table
from .axes import axis, weights
from .cases import LIBRARIES
from .examine import STRATEGIES
from .records import (
    ISOMETRIC,
    KINDS,
    LEAST_LAYERS,
    LEVER,
    PLAIN,
    SILENCE,
    TIE,
    WITHIN,
    Record,
    best,
    lever,
    saturated,
    sees_positions,
    silenced,
    tolerance,
)
from .text import code, number, percent
from .uniform import uniform, widths

LISTED = 15
"""Networks named in a list; the table has all of them."""


def write(records: list[Record], measured: list[Record], document: Path) -> None:
    """``records``: of :mod:`.examine`; ``measured``: of :mod:`.uniform`, for some of the same networks."""
    records = sorted(records, key=lambda r: (LIBRARIES.index(r["library"]), r["task"], r["model"]))
    planned = [r for r in records if r["outcome"] == "ok"]
    with_trend = [r for r in planned if r["layers"] >= LEAST_LAYERS and r["trend"]["isometric"] is not None]
    replace_section(document, "zoo-coverage", coverage(records))
    replace_section(document, "zoo-misses", misses(records))
    replace_section(document, "zoo-trends", trends(with_trend))
    replace_section(document, "zoo-kinds", kinds(with_trend))
    replace_section(document, "zoo-widths", widths(with_trend))
    replace_section(document, "zoo-uniform", uniform(with_trend, measured))
    replace_section(document, "zoo-axis", axis(with_trend))
    replace_section(document, "zoo-weights", weights(with_trend))
    replace_section(document, "zoo-edges", edges(with_trend))
    replace_section(document, "zoo-networks", networks(records))


def coverage(records: list[Record]) -> str:
    rows = []
    for library in (*LIBRARIES, "all"):
        mine = [r for r in records if library in (r["library"], "all")]
        if not mine:
            continue
        count = Counter(r["outcome"] for r in mine)
        tried = count["ok"] + count["miss"]
        share = f"{count['ok'] / tried:.1%}" if tried else "–"
        time = f"{median(r['seconds'] for r in mine if r['outcome'] == 'ok'):.1f} s" if count["ok"] else "–"
        release = next((r["versions"][library] for r in mine if library in r.get("versions", {})), "")
        rows.append((library, release, len(mine), count["nothing to plan"], tried, count["ok"], share, time))
    head = ("library", "version", "networks", "no norm to plan", "to plan", "all stages passed", "share", "median time")
    commits = sorted({r["commit"] for r in records if "commit" in r})
    torch = sorted({r["versions"]["torch"] for r in records if "versions" in r})
    note = (
        "Stages: build, plan with seven strategies, convert, measure, one SGD step with finite gradients. Checked on "
        "the way: planning changes nothing; the converted network measures what the plan promised; a network without a "
        "supported norm is refused in one sentence. Time is processor time on one core, all stages together. "
        f"PyTorch {', '.join(torch)}; revisions of this library: {', '.join(commits) or 'not recorded'}."
    )
    return f"{table(head, rows)}\n\n{note}"


def misses(records: list[Record]) -> str:
    rows = [
        (f"{r['library']}:{r['model']}", r["stage"], code(r.get("cause", "")), code(r.get("alone", "")))
        for r in records
        if r["outcome"] == "miss"
    ]
    if not rows:
        return "Every network that has a norm to plan passed every stage."
    return table(("network", "stage", "cause", "the network by itself"), rows)


def trends(records: list[Record]) -> str:
    sensitive = [r for r in records if lever(r) >= LEVER]
    dense = [r for r in sensitive if sees_positions(r)]
    pooled = [r for r in sensitive if not sees_positions(r)]
    normed = [r for r in pooled if r["sites"] >= r["layers"] / 2]
    parts = []
    for title, chosen in (
        (f"All {len(records)} networks with at least {LEAST_LAYERS} weight layers", records),
        (f"The {len(sensitive)} of them whose trend the number of groups moves by {LEVER} or more", sensitive),
        (f"The {len(pooled)} of these whose loss sees a global mean: here isometry is the aim", pooled),
        (f"The {len(normed)} of those {len(pooled)} in which every second weight layer or more has its norm", normed),
        (f"The {len(dense)} whose loss sees positions: here the plan lets T fall to −{POSITION_TOLERANCE:.1f}", dense),
    ):
        rows = []
        for strategy in STRATEGIES:
            values = [abs(r["trend"][strategy]) for r in chosen]
            rows.append(
                (
                    strategy,
                    f"{median(values):.2f}" if values else "–",
                    f"{np.quantile(values, 0.9):.2f}" if values else "–",
                    percent(value <= ISOMETRIC for value in values),
                    percent(strategy in best(r, STRATEGIES) for r in chosen),
                    "" if strategy == "hybrid" else percent(strategy in best(r, PLAIN) for r in chosen),
                    "" if strategy == "hybrid" else percent(strategy in best(r, PLAIN, WITHIN) for r in chosen),
                    f"{median(r['spread'][strategy] for r in chosen):.2f}" if chosen else "–",
                )
            )
        head = (
            "strategy",
            "median of absolute trend",
            "90th percentile",
            "within 0.3",
            "most isometric",
            "without hybrid",
            "or within δ of it",
            "median spread",
        )
        parts.append(f"{title}:\n\n{table(head, rows)}")
    parts.append(
        f"*Most isometric*: the smallest absolute trend of all, ties within {TIE} counting for each; plans lean "
        f"to −δ on purpose (as many groups as isometry allows): δ is {ISOMETRY_TOLERANCE} or half a standard error "
        f"of the trend, whichever is more, and {POSITION_TOLERANCE:.1f} where the loss sees positions."
    )
    return "\n\n".join(parts)


def kinds(records: list[Record]) -> str:
    rows = []
    for kind, belongs in KINDS.items():
        mine = [r for r in records if belongs(r)]
        if mine:
            medians = [f"{median(abs(r['trend'][s]) for r in mine):.2f}" for s in STRATEGIES]
            wins = percent("isometric" in best(r, PLAIN) for r in mine)
            dense = percent(sees_positions(r) for r in mine)
            below = percent(r["trend"]["layer"] < -tolerance(r) for r in mine)
            above = percent(saturated(r) for r in mine)
            rows.append((kind, len(mine), dense, *medians, wins, below, above))
    head = (
        *("kind", "networks", "see positions", *STRATEGIES),
        *("plan most isometric", "below −δ at one group", "above +0.25 at the largest ε"),
    )
    return f"Median of the absolute trend by kind of network:\n\n{table(head, rows)}"


def edges(records: list[Record]) -> str:
    below = [r for r in records if r["trend"]["layer"] < -tolerance(r)]
    rescued = [r for r in below if r["trend"]["isometric"] >= -tolerance(r)]
    above = [r for r in records if saturated(r)]
    hidden = [r for r in above if r["trend"]["instance"] < -tolerance(r)]
    flat = [r for r in records if lever(r) < LEVER]
    dead = [r for r in records if silenced(r)]
    parts = [
        f"**One group is already too many** ({len(below)} networks: trend at one group below −δ; in "
        f"{len(rescued)} of them a finer grouping is isometric all the same): {listing(below, 'layer')}.",
        f"**The largest budget is not enough** ({len(above)}: ε = {MAX_BUDGET:.2f} and the trend still above "
        f"{ISOMETRY_TOLERANCE}; in {len(hidden)} of them instance norm is below −δ, so isometry "
        f"lies between): {listing(above, 'isometric')}.",
        f"**The number of groups hardly matters** ({len(flat)}: the trend moves by less than {LEVER} from one group to "
        f"one channel per group): {listing(flat, 'isometric')}.",
    ]
    parts.append(
        f"**The plan silences weights** ({len(dead)}: log u of some weights is {-SILENCE:g} or more below that with "
        "one group; one channel per group removes what is constant over positions, a time embedding for instance): "
        + (", ".join(f"{r['library']}:{r['model']} ({silenced(r)} of {r['layers']})" for r in dead) or "none")
        + "."
    )
    return "\n\n".join(parts)


def listing(records: list[Record], strategy: str) -> str:
    worst = sorted(records, key=lambda r: -abs(r["trend"][strategy]))
    named = ", ".join(f"{r['library']}:{r['model']} ({number(r['trend'][strategy])})" for r in worst[:LISTED])
    return (named or "none") + (f" and {len(worst) - LISTED} more in the table below" if len(worst) > LISTED else "")


def networks(records: list[Record]) -> str:
    rows = []
    for r in records:
        if r["outcome"] == "ok":
            widths = [channels // groups for channels, _, groups in r["groups"]]
            cells = (
                r["input"] if len(r["input"]) < 30 else r["input"][:27] + "…",
                r["sites"],
                min(positions for _, positions, _ in r["groups"]),
                f"{tolerance(r):.2f}",
                number(r["budget"]["isometric"]),
                f"{median(widths):g}",
                f"{min(widths)}–{max(widths)}",
                number(r["trend_before"]),
                *(number(r["trend"][s]) for s in STRATEGIES),
            )
        else:
            cells = (r["outcome"], *([""] * 14))
        rows.append((f"{r['library']}:{r['model']}", *cells))
    head = ("network", "input", "norms", "least S", "δ", "ε", "median c", "range of c", "T before", *STRATEGIES)
    return table(head, rows)
