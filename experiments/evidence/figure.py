"""The figure of docs/evidence.md: how far each choice lies above the best, a panel for each finished arm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .report import HABIT, OURS, RANKED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {OURS: "#d55e00", HABIT: "#0072b2"}
OTHERS = "#777777"
SHOWN = tuple(name for name in RANKED if name != "instance")
"""Instance norm is much worse than the others, and in the table."""


def above_figure(columns: Mapping[str, Mapping[str, float]]) -> Figure:
    """``columns``: the title of every arm, and by how many per cent each choice lies above the best there.

    Every arm has its own scale, for test losses near zero make large per cents.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.9), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for panel, (title, values) in zip(panels, columns.items(), strict=True):
        names = [name for name in reversed(SHOWN) if name in values]
        panel.hlines(names, 0, [values[name] for name in names], color="#cccccc", linewidth=1, zorder=1)
        panel.scatter(
            [values[name] for name in names], names, color=[COLORS.get(name, OTHERS) for name in names], zorder=2
        )
        panel.set_title(title, loc="left", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
        largest = max(values[name] for name in names)
        panel.set_xlim(-0.05 * largest, 1.1 * largest)
        panel.grid(axis="x", color="#eeeeee")
        panel.set_axisbelow(True)
    figure.supxlabel(
        "test loss above that of the arm's best choice, %: left is better; each arm has its own scale", fontsize=10
    )
    return figure
