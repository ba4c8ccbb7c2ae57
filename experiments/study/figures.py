"""The plots of a report: one figure a network (intervals, learning-rate curves), one overview of all arms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING

from .analysis import CANDIDATES, RANKED, REFERENCE, Row, mean_decades, ranks
from .config import STRATEGIES, SWEEP, SWEEP_MEMBERS, Arm
from .stats import bootstrap_interval

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Arms = Mapping[Arm, Mapping[str, Row]]

THEORY, HABIT, OTHER = "#d55e00", "#0072b2", "#555555"
CURVES = {
    "isometric": "#d55e00",
    "hybrid": "#e69f00",
    "block": "#cc79a7",
    "fixed-32": "#0072b2",
    "layer": "#56b4e9",
    "instance": "#009e73",
    "batch": "#222222",
}
"""Strategies with a color of their own, left and right (Okabe and Ito 2008); the others are grey."""

GREY = "#999999"

MOST_OVER_BEST, MOST_OVER_MEDIAN = 1.6, 1.25
"""The intervals' axis ends at these multiples of the strategies' losses; what lies beyond is an arrow at the edge."""

CURVES_OVER_BEST = 3.0
"""The curves' axis ends at this multiple of the least loss."""


def network_figure(network: str, arms: Arms) -> Figure:
    """One row of panels an arm: test loss with its interval, and validation loss over learning rates."""
    from matplotlib.figure import Figure

    own = {arm: rows for arm, rows in arms.items() if arm.network == network}
    heights = [1.2 + 0.19 * len(rows) for rows in own.values()]
    figure = Figure(figsize=(11, sum(heights) + 0.4), layout="constrained")
    panels = figure.subplots(len(own), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for (left, right), (arm, rows) in zip(panels, own.items(), strict=True):
        draw_intervals(left, rows)
        draw_curves(right, rows)
        left.set_title(str(arm), loc="left", fontsize=10)
    drawn: dict[str, Artist] = {}
    for _, right in panels:
        handles, labels = right.get_legend_handles_labels()
        drawn |= dict(zip(labels, handles, strict=True))
    shown = [name for name in (*CURVES, "others") if name in drawn]
    figure.legend(
        [drawn[name] for name in shown], shown, loc="outside lower center", ncols=len(shown), frameon=False, fontsize=9
    )
    return figure


def draw_intervals(axes: Axes, rows: Mapping[str, Row]) -> None:
    """Mean test loss at the best learning rate with its 95% interval, best on top and ablations below; a dot a seed."""
    shown = [name for name in rows if name in STRATEGIES or name not in SWEEP_MEMBERS]
    means = {name: fmean(rows[name].test_loss.values()) for name in shown}
    names = sorted(shown, key=lambda name: ("@" not in name, -means[name]))  # ablations below the strategies
    ablations = sum("@" in name for name in names)
    if 0 < ablations < len(names):
        axes.axhline(ablations - 0.5, color=GREY, lw=0.8, ls=":")
    finite = [mean for mean in means.values() if math.isfinite(mean)]
    limit = max(MOST_OVER_BEST * min(finite), MOST_OVER_MEDIAN * median(finite)) if finite else 1.0
    for y, name in enumerate(names):
        color = CURVES.get(name, GREY)
        seeds = list(rows[name].test_loss.values())
        if means[name] > limit:
            axes.plot(1, y, ">", color=color, ms=4, transform=axes.get_yaxis_transform(), clip_on=False)
            continue
        interval = bootstrap_interval(seeds)
        axes.plot(seeds, [y] * len(seeds), "o", color=color, ms=3, alpha=0.35, mew=0)
        axes.plot([interval.low, interval.high], [y, y], color=color, lw=2)
        axes.plot(interval.mean, y, "o", color=color, ms=5)
    axes.set_yticks(range(len(names)), [f"{name} {rows[name].note}".strip() for name in names], fontsize=8)
    axes.set_xlabel("test loss at the best learning rate")
    axes.set_ylim(-0.6, len(names) - 0.4)
    _clean(axes)
    axes.grid(axis="x", lw=0.4, alpha=0.5)


def draw_curves(axes: Axes, rows: Mapping[str, Row]) -> None:
    """Validation loss over learning rates, mean over the tuning seeds; cut off far above the best."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    least = min(loss for row in rows.values() for loss in row.curve.values())
    for name in sorted(rows, key=lambda n: n in CURVES):
        if name == SWEEP:
            continue
        curve = {rate: loss for rate, loss in rows[name].curve.items() if math.isfinite(loss)}
        color = CURVES.get(name)
        if color is None:
            axes.plot(list(curve), list(curve.values()), color=GREY, lw=0.7, zorder=1, label="others")
        else:
            width = 2.2 if name == CANDIDATES[0] else 1.4
            axes.plot(list(curve), list(curve.values()), "o-", color=color, lw=width, ms=3, label=name, zorder=2)
    axes.set_xscale("log")
    rates = sorted({rate for row in rows.values() for rate in row.curve})
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_yscale("log")
    axes.set_ylim(0.95 * least, min(axes.get_ylim()[1], CURVES_OVER_BEST * least))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.minorticks_off()
    axes.set_xlabel("learning rate")
    axes.set_ylabel("validation loss")
    _clean(axes)


def overview_figure(arms: Arms) -> Figure:
    """Mean ranks, test loss against the reference in each arm, and ranges of working learning rates."""
    from matplotlib.figure import Figure

    rank, decades = ranks(arms), mean_decades(arms)
    names = [name for name in STRATEGIES if any(name in rows for rows in arms.values())]
    names.sort(key=lambda name: rank.get(name, math.inf), reverse=True)
    figure = Figure(figsize=(12, 1.2 + 0.32 * len(names)), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True)
    for y, name in enumerate(names):
        color = THEORY if name in CANDIDATES else HABIT if name in RANKED else OTHER
        if name in rank:
            left.plot(rank[name], y, "o", color=color)
            left.text(rank[name], y + 0.15, f"{rank[name]:.1f}", fontsize=8, ha="center", va="bottom", color=color)
        _draw_relative(middle, y, [100 * ratio for ratio in _relative(arms, name)], color)
        right.plot([0, decades[name]], [y, y], color=color, lw=4, solid_capstyle="butt")
    left.set_yticks(range(len(names)), names)
    left.set_xlabel("mean rank by test loss (1 is best)")
    middle.axvline(0, color="black", lw=0.6)
    middle.set_xlabel(f"test loss against {REFERENCE}, %, a dot an arm")
    right.set_xlabel("decades of learning rates within 5% of the best")
    right.set_xlim(left=0)
    for axes in (left, middle, right):
        axes.grid(axis="both", lw=0.4, alpha=0.4)
        _clean(axes)
    figure.suptitle(
        f"{len(arms)} arms. Orange: strategies from theory; blue: habits; grey: not ranked", x=0.01, ha="left"
    )
    return figure


RELATIVE_LIMIT = 40.0


def _draw_relative(axes: Axes, y: float, percents: Sequence[float], color: str) -> None:
    inside = [value for value in percents if abs(value) <= RELATIVE_LIMIT]
    beyond = [value for value in percents if abs(value) > RELATIVE_LIMIT]
    axes.plot(inside, [y] * len(inside), "o", color=color, ms=4, alpha=0.45, mew=0)
    axes.plot(
        [math.copysign(RELATIVE_LIMIT, v) for v in beyond], [y] * len(beyond), ">", color=color, ms=4, alpha=0.45, mew=0
    )
    finite = [value for value in percents if math.isfinite(value)]
    if finite:
        axes.plot(max(min(fmean(finite), RELATIVE_LIMIT), -RELATIVE_LIMIT), y, "|", color=color, ms=14, mew=2)


def _relative(arms: Arms, name: str) -> list[float]:
    """Relative difference of mean test loss to the reference, one value an arm, over common seeds."""
    values = []
    for rows in arms.values():
        if name in rows and REFERENCE in rows:
            ours, theirs = rows[name].test_loss, rows[REFERENCE].test_loss
            seeds = sorted(set(ours) & set(theirs))
            base = fmean(theirs[seed] for seed in seeds) if seeds else math.inf
            if math.isfinite(base):
                values.append(fmean(ours[seed] for seed in seeds) / base - 1)
    return values


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
