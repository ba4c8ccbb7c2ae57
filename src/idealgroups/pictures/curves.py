"""Draw the sizes of gradients over depth: level where gradients propagate isometrically."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .. import verdict
from ..records import Gradients
from ..text import signed
from ..theory.formulas import Floats
from .depth import Depth, separate
from .style import AFTER, FAINT, INK, PAPER


@dataclass(frozen=True)
class Curve:
    """The sizes of the gradients of one pass over depth, and what to call them."""

    title: str
    gradients: Gradients
    color: str = AFTER
    mark: str = "o"
    dash: str = "-"


def allowed(lowest: float | None) -> tuple[float, float]:
    """The trends that count as good: from the limit of the plan, or isometric ones."""
    return (-verdict.ISOMETRIC if lowest is None else min(lowest, -verdict.ISOMETRIC)), verdict.ISOMETRIC


def _sizes(gradients: Gradients) -> tuple[list[str], Floats, list[bool]]:
    """Return names, logarithms of u (of v for DP-SGD), less the middle of their line, and which are in the line."""
    private = gradients.optimizer == "dp-sgd"
    sizes = np.array([one.per_element if private else one.relative for one in gradients.layers])
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(sizes)
    logs[~np.isfinite(logs)] = np.nan
    inside = [one.in_line for one in gradients.layers]
    line = logs[inside]
    ranks = np.arange(len(line)) - (len(line) - 1) / 2
    slope = gradients.trend / max(len(line) - 1, 1)
    rest = line - (slope * ranks if math.isfinite(slope) else 0)
    middle = np.nanmedian(rest) if np.isfinite(rest).any() else 0.0
    return [one.name for one in gradients.layers], logs - middle, inside


def draw_curves(axes: Axes, curves: Sequence[Curve], axis: Depth, lowest: float | None, name: str = "good") -> None:
    """Draw every curve with its robust line, and a fan of the trends that count as good.

    ``lowest``: the limit of the trend; None for isometric trends alone. ``name``: what the legend calls the fan.
    """
    seen = [0.0]
    for layer, curve in enumerate(curves):
        seen += _draw_curve(axes, curve, axis, 3 + 2 * layer)
    if any(_ends(curve, axis) for curve in curves):
        low, high = allowed(lowest)
        first, last = next(ends for curve in reversed(curves) if (ends := _ends(curve, axis)))
        axes.fill_between(
            [first, (first + last) / 2, last],
            [-low / 2, 0, low / 2],
            [-high / 2, 0, high / 2],
            color=AFTER,
            alpha=0.18,
            lw=0,
            label=f"{name}: a trend of {signed(low)} to {signed(high)}",
        )
    if not all(layer.in_line for curve in curves for layer in curve.gradients.layers):
        axes.plot([], [], "o", ms=3.5, mfc=PAPER, mec=INK, mew=0.8, label="hollow: not in the trend")
    axes.axhline(0, color=FAINT, lw=0.7)
    axes.set_xlim(-0.6, axis.count - 0.4)
    axes.xaxis.set_major_locator(NullLocator())
    private = any(curve.gradients.optimizer == "dp-sgd" for curve in curves)
    _name_factors(axes, min(seen), max(seen), "v" if private else "u")
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 0.985),
        ncols=2,
        borderaxespad=0.2,
        columnspacing=1.5,
        labelspacing=0.25,
        handlelength=2.2,
    )
    separate(axes, axis)


def _draw_curve(axes: Axes, curve: Curve, axis: Depth, height: int) -> list[float]:
    """Draw one curve and its line; return what has been drawn."""
    names, logs, inside = _sizes(curve.gradients)
    x = np.array([axis.weights.get(name, math.nan) for name in names])
    axes.plot(x, logs, color=curve.color, lw=0.8, alpha=0.55, zorder=height)
    for mask, face in ((np.array(inside), curve.color), (~np.array(inside), PAPER)):
        axes.plot(x[mask], logs[mask], curve.mark, ms=3.5, mfc=face, mec=curve.color, mew=0.8, zorder=height + 1)
    trend, ends = curve.gradients.trend, _ends(curve, axis)
    label = f"{curve.title}: {f'trend {signed(trend)}' if ends else 'too few layers for a trend'}"
    line = (ends, [-trend / 2, trend / 2]) if ends else ([], [])
    axes.plot(*line, curve.dash, color=curve.color, lw=2.4, label=label, zorder=height + 6)
    return [float(value) for value in (*logs[np.isfinite(logs)], *line[1])]


def _ends(curve: Curve, axis: Depth) -> tuple[float, float] | None:
    """Return where the line of a curve begins and ends; None if it has none."""
    inside = [axis.weights[one.name] for one in curve.gradients.layers if one.in_line and one.name in axis.weights]
    if len(inside) < 2 or not math.isfinite(curve.gradients.trend):
        return None
    return inside[0], inside[-1]


def _name_factors(axes: Axes, low: float, high: float, symbol: str) -> None:
    """Mark factors on the left and logarithms on the right of an axis that holds values from ``low`` to ``high``."""
    low, high = min(low, -math.log(3)), max(high, math.log(3))
    room = 0.07 * (high - low)
    low, high = low - room, high + room
    axes.set_ylim(low, high)
    steps = [10.0**power for power in range(-12, 13)]
    if high - low < math.log(1000):
        steps += [3 * step for step in steps]
    marks = [math.log(step) for step in steps if low <= math.log(step) <= high]
    axes.yaxis.set_major_locator(FixedLocator(marks))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"×{math.exp(y):.6g}"))
    axes.set_ylabel("gradient per weight, v" if symbol == "v" else "relative gradient, u")
    logarithms = axes.secondary_yaxis("right")
    logarithms.set_ylabel(f"log {symbol}")
    logarithms.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.3g}".replace("-", "−")))
