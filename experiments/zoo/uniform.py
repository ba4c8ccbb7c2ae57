"""One number for the whole network: how isometric can it be, and which number? For those who cannot run a plan."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from statistics import median
from typing import Any

import numpy as np

from idealgroups.planner import Survey
from idealgroups.sandbox.calling import copy_inputs

from ..common.first_rule import strategy_named
from ..common.markdown import table
from .cases import Case
from .examine import Enter, build
from .records import ISOMETRIC, LEAST_LAYERS, LEVER, Record, depthwise, lever, sees_positions
from .text import number, percent

SIZES = (2, 4, 8, 16, 32, 64)
UNIFORM = (*(f"channels-{size}" for size in SIZES), *(f"fixed-{size}" for size in SIZES), "sqrt")

KINDS: dict[str, Callable[[Record], bool]] = {
    "no depthwise convolution": lambda r: not sees_positions(r) and not r["depthwise"],
    "a quarter or more depthwise": lambda r: not sees_positions(r) and depthwise(r),
    "dense": sees_positions,
}
CHANNELS = (16, 32, 64, 128, 256, 512, 1024, 2048)


def concerned(record: Record) -> bool:
    """A number of groups matters to this network, and isometry is its aim."""
    return matters(record) and not sees_positions(record)


def matters(record: Record) -> bool:
    return record["outcome"] == "ok" and record["layers"] >= LEAST_LAYERS and lever(record) >= LEVER


def examine_uniform(case: Case, enter: Enter = lambda stage: None) -> dict[str, Any]:
    """One record: the trend with each uniform choice, measured as :func:`.examine.examine` does."""
    enter("build")
    model, inputs = build(case)
    enter("plan")
    network = Survey(model, copy_inputs(inputs), loss=case.loss, name=case.name)
    trends = {strategy: network.plan(strategy_named(strategy)).trend_after for strategy in UNIFORM}
    rounded = {strategy: None if value is None else round(value, 3) for strategy, value in trends.items()}
    return {"library": case.library, "model": case.name, "outcome": "ok", "trend": rounded}


def uniform(records: list[Record], measured: list[Record]) -> str:
    """|T| of one number for all layers beside the plan's."""
    extra = {(r["library"], r["model"]): r["trend"] for r in measured if r["outcome"] == "ok"}
    trends = [
        (r, extra[r["library"], r["model"]] | r["trend"])
        for r in records
        if concerned(r) and (r["library"], r["model"]) in extra
    ]
    kinds = {name: [t for r, t in trends if belongs(r)] for name, belongs in KINDS.items() if name != "dense"}
    kinds["all"] = [t for _, t in trends]
    choices: dict[str, Callable[[dict[str, float]], float]] = {
        **{name: itemgetter(name) for name in ("isometric", *UNIFORM, "layer", "instance")},
        "the best of these for each network": lambda trend: min((trend[name] for name in UNIFORM), key=abs),
    }
    rows = []
    for name, choose in choices.items():
        values = [[abs(choose(trend)) for trend in members] for members in kinds.values()]
        rows.append(
            (
                name,
                *(number(median(v)) if v else "–" for v in values),
                *(percent(x <= ISOMETRIC for x in v) for v in values),
            )
        )
    head = (
        "groups",
        *(f"{kind} ({len(members)})" for kind, members in kinds.items()),
        *(f"within 0.3: {kind}" for kind in kinds),
    )
    return f"Median of the absolute trend, and the share of networks within 0.3:\n\n{table(head, rows)}"


def widths(records: list[Record]) -> str:
    """What the plans choose, by number of channels; a network counts once in each row."""
    kinds = {name: [r for r in records if matters(r) and belongs(r)] for name, belongs in KINDS.items()}
    rows = []
    for channels in CHANNELS:
        cells = []
        for members in kinds.values():
            means = [mean for mean in (_width(r, channels) for r in members) if mean is not None]
            low, middle, high = np.quantile(means, (0.25, 0.5, 0.75)) if means else (0, 0, 0)
            cells.append(f"{middle:.0f} ({low:.0f}–{high:.0f}; {len(means)})" if means else "–")
        rows.append((channels, *cells))
    head = ("channels", *kinds)
    note = "Channels per group of the plans: median (quartiles; networks), layers with more than one position."
    return f"{note}\n\n{table(head, rows)}"


def _width(record: Record, channels: int) -> float | None:
    """Geometric mean of the channels per group in layers of about so many channels."""
    near = [c / g for c, positions, g in record["groups"] if positions > 1 and 2 ** round(np.log2(c)) == channels]
    return float(np.exp(np.mean(np.log(near)))) if near else None
