"""Plans, measurements and comparisons → figures of matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from .. import verdict
from ..tables import trends_of
from ..text import shorten, signed
from .curves import Curve, allowed, draw_curves
from .depth import Depth, name_stages
from .groups import draw_groups, draw_residuals, draw_sizes
from .style import AFTER, BEFORE, FAINT, INK, PAPER, STYLE, WIDTH, Picture, caption, foot, panels, write_title

if TYPE_CHECKING:
    from ..results import Measurement, Plan


@rc_context(STYLE)
def plan_figure(plan: Plan, captioned: bool = True) -> Figure:
    """Draw groups and group sizes over depth, below the gradients before and with the plan."""
    weights = [] if plan.before is None else [layer.name for layer in plan.before.layers]
    axis = Depth.of(weights, [site.name for site in plan.sites])
    title = f"{plan.model} on {plan.input}, {plan.strategy}"
    curves = _curves_of(plan)
    text = plan_caption(plan) if captioned else None
    if _is_calibrated(plan) or curves:
        figure, (top, bottom) = panels((2.5, 1.6), title, text, rows=1 if _is_calibrated(plan) else 2)
        if _is_calibrated(plan):
            draw_residuals(top, plan, axis)
        else:
            draw_curves(top, curves, axis, plan.lowest_trend)
    else:
        figure, (bottom,) = panels((2.2,), title, text, rows=1)
    draw_groups(bottom, plan.sites, axis)
    name_stages(bottom, axis)
    if text is not None:
        caption(figure, text)
    return figure


def plan_caption(plan: Plan) -> str:
    """Return a sentence that says what good looks like in the figure of a plan."""
    if _is_calibrated(plan):
        return "Good: low bars. A residual is what calibration could not fit, as a share of the layer's variance."
    if not _curves_of(plan):
        return "Nothing was measured: these numbers follow from the shapes alone."
    if plan.after is not None and sum(layer.in_line for layer in plan.after.layers) < 2:
        return "There is no trend, because groups can move the gradients of fewer than two weight layers."
    return (
        "Good: the solid line is level or stays in the shaded fan, so that first and last layers take relative steps "
        "of like size."
    )


def _curves_of(plan: Plan) -> list[Curve]:
    curves = []
    if plan.before is not None:
        curves.append(Curve("before", plan.before, BEFORE, "s", "--"))
    if plan.after is not None:
        curves.append(Curve("with the plan", plan.after))
    return curves


def _is_calibrated(plan: Plan) -> bool:
    return any(site.residual is not None for site in plan.sites)


@rc_context(STYLE)
def measurement_figure(measured: Sequence[tuple[str, Measurement]], lowest: float | None = None) -> Figure:
    """Draw the gradients of one measurement, or of the same network before and after, over depth.

    ``lowest``: the limit of the trend, if a plan has one.
    """
    first = measured[0][1]
    axis = Depth.of([layer.name for layer in first.layers], [])
    looks = [(AFTER, "o", "-")] if len(measured) == 1 else [(BEFORE, "s", "--"), (AFTER, "o", "-")]
    curves = [
        Curve(title, one.gradients, *look)
        for (title, one), look in zip(measured, [*looks, (INK, "^", ":")], strict=False)
    ]
    text = "Good: a level line. Then first and last layers take relative steps of like size."
    figure, (axes,) = panels((3.0,), f"{first.model} on {first.input}", text, rows=(len(curves) + 3) // 2)
    draw_curves(axes, curves, axis, lowest, "isometric" if lowest is None else "good")
    name_stages(axes, axis)
    caption(figure, text)
    return figure


@rc_context(STYLE)
def comparison_figure(plans: Sequence[Plan]) -> Figure:
    """Draw the trend of every strategy beside its group sizes, one row a strategy."""
    take = verdict.chosen([trends_of(plan) for plan in plans])
    first = plans[0]
    axis = Depth.of([], [site.name for site in first.sites])
    text = "Good: a dot inside the band, or as near to it as a network allows. Bold: the one to take."
    row = 0.32
    base = 0.68 + foot(text)
    height = row * len(plans) + base + 0.9
    figure = Picture(figsize=(WIDTH, height))
    bottom, tall, strips = base / height, row * len(plans) / height, 2.95
    left = figure.add_axes((1.45 / WIDTH, bottom, 1.65 / WIDTH, tall))
    right = figure.add_axes((3.3 / WIDTH, bottom, strips / WIDTH, tall))
    write_title(figure, f"{first.model} on {first.input}")
    _draw_trends(left, plans, take)
    draw_sizes(right, plans, axis)
    name_stages(right, axis, width=strips)
    caption(figure, text)
    return figure


def _draw_trends(axes: Axes, plans: Sequence[Plan], take: int) -> None:
    lowest = [plan.lowest_trend for plan in plans if plan.lowest_trend is not None]
    low, high = allowed(min(lowest) if lowest else None)
    trends = [plan.trend_after for plan in plans]
    axes.axvspan(low, high, color=AFTER, alpha=0.16, lw=0, label=f"good: {signed(low)} to {signed(high)}")
    axes.axvline(0, color=FAINT, lw=0.7)
    before = plans[0].trend_before
    if math.isfinite(before):
        axes.axvline(before, color=BEFORE, lw=1.4, ls="--", label=f"before: {signed(before)}")
    for index, trend in enumerate(trends):
        if math.isfinite(trend):
            inside = low <= trend <= high
            axes.plot(trend, index, "o", ms=6.5, color=AFTER, mfc=AFTER if inside else PAPER, mew=1.4)
    axes.set_ylim(len(plans) - 0.5, -0.5)
    axes.yaxis.set_major_locator(FixedLocator(range(len(plans))))
    axes.set_yticklabels([shorten(plan.strategy, 18) for plan in plans])
    axes.get_yticklabels()[take].set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.08)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:+.3g}".replace("-", "−").replace("+0", "0")))
    axes.set_xlabel("trend of log v" if plans[0].optimizer == "dp-sgd" else "trend of log u")
    axes.spines["right"].set_visible(False)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.99),
        borderaxespad=0.2,
        labelspacing=0.25,
        handlelength=1.4,
    )
