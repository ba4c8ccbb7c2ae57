"""The figure of docs/evidence.md: how far each choice lies above the best, a dot for each finished arm."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from .report import KINDS, RANKED, Above

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = dict(zip(KINDS, zip("osD^vP", ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#000000"), strict=True),
                 strict=True))  # fmt: skip
"""Marker and colour of each kind of arm, for the colour-blind too."""

LINEAR = 2.0
"""Per cents from zero to here are on a linear scale, larger ones on a logarithmic one."""

TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)


def above_figure(arms: Sequence[Above]) -> Figure:
    """A row for each choice without training, the least median at the top, and a bar at the median."""
    from matplotlib.figure import Figure

    names = [name for name in RANKED if all(name in one.values for one in arms)]
    middle = {name: median(one.values[name] for one in arms) for name in names}
    names.sort(key=lambda name: -middle[name])
    figure = Figure(figsize=(6.8, 4.6), layout="constrained")
    axes = figure.subplots()
    kinds = [kind for kind in KINDS if any(one.kind == kind for one in arms)]
    for i, kind in enumerate(kinds):
        own = [one for one in arms if one.kind == kind]
        marker, color = STYLE[kind]
        shift = 0.3 * (1 - 2 * i / max(1, len(kinds) - 1))
        x = [one.values[name] for name in names for one in own]
        y = [row + shift for row in range(len(names)) for _ in own]
        axes.scatter(x, y, s=26, marker=marker, color=color, alpha=0.85, label=kind, linewidth=0, zorder=3)
    axes.scatter(
        [middle[name] for name in names], range(len(names)), s=330, marker="|", color="black", linewidth=2,
        label="median", zorder=2,
    )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set_xscale("symlog", linthresh=LINEAR)
    largest = max(value for one in arms for name, value in one.values.items() if name in names)
    axes.set_xlim(-0.2, 1.3 * max(LINEAR, largest))
    shown = [tick for tick in TICKS if tick <= 1.3 * max(LINEAR, largest)]
    axes.set_xticks(shown, [str(tick) for tick in shown])
    axes.minorticks_off()
    axes.set_xlabel("test loss above that of the arm's best choice, %; left is better")
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure
