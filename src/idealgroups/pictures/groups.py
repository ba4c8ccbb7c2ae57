"""Draw numbers of groups and group sizes over depth, as bars or as strips, and the residuals of calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ..records import Site
from ..text import decimal
from .depth import Depth, separate
from .style import AFTER, BEFORE, FAINT, LEFT, RIGHT, WIDTH

if TYPE_CHECKING:
    from ..results import Plan

SIZE_COLORS = colormaps["viridis"]
WIDEST_BAR = 0.6
"""Inches; a network of two layers would have bars like doors."""

NUMBER_POINTS, DIGIT, LINE = 8.5, 0.085, 0.12
"""The size of a number on a bar, and the inches that a digit and a line of it take with some space around."""


def draw_residuals(axes: Axes, plan: Plan, axis: Depth) -> None:
    """Draw a bar for the residual of every calibrated layer, and a line for that of the output."""
    for (x, width), site in zip(axis.norms, plan.sites, strict=True):
        if site.residual is not None:
            axes.bar(x, site.residual, 0.8 * width, color=AFTER)
    axes.set_ylabel("residual of the layer")
    axes.set_xlim(-0.6, axis.count - 0.4)
    axes.spines["right"].set_visible(False)
    axes.xaxis.set_major_locator(NullLocator())
    if plan.output_residual is not None:
        axes.axhline(plan.output_residual, color=BEFORE, lw=1.5, ls="--")
        label = f"residual of the network's output: {decimal(plan.output_residual, 3)}"
        axes.plot([], [], color=BEFORE, lw=1.5, ls="--", label=label)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.985), borderaxespad=0.2)
    axes.set_ylim(bottom=0)
    separate(axes, axis)


def draw_groups(axes: Axes, sites: Sequence[Site], axis: Depth) -> None:
    """Draw bars as high as the number of groups, colored by the channels of a group."""
    scale = _Colors([site.group_size for site in sites])
    slot = (WIDTH - LEFT - RIGHT) / axis.count
    texts = [
        (DIGIT * len(str(site.num_groups)), slot * width) for (_, width), site in zip(axis.norms, sites, strict=True)
    ]
    upright = all(text <= room for text, room in texts)
    written = upright or all(room > LINE for _, room in texts)
    for (x, width), site in zip(axis.norms, sites, strict=True):
        bar = min(0.86 * width, WIDEST_BAR / slot)
        top = math.log2(site.num_groups)
        axes.bar(x, top + 0.5, bar, -0.5, color=scale.of(site.group_size), edgecolor=FAINT, lw=0.4)
        if written:
            turn = 0 if upright else 90
            axes.text(
                x,
                top + 0.12,
                str(site.num_groups),
                ha="center",
                va="bottom",
                fontsize=NUMBER_POINTS,
                rotation=turn,
            )
        if site.groups_before is not None:
            before = [math.log2(site.groups_before)] * 2
            axes.plot([x - bar / 2, x + bar / 2], before, color=BEFORE, lw=1.8, solid_capstyle="butt")
    most = max(max(site.num_groups, site.groups_before or 1) for site in sites)
    axes.set_ylim(-0.5, math.log2(most) + (0.9 if upright else 1.6))
    axes.set_xlim(-0.6, axis.count - 0.4)
    axes.yaxis.set_major_locator(FixedLocator(range(0, int(math.log2(most)) + 1, 2)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{2**y:g}"))
    axes.set_ylabel("groups")
    axes.spines["right"].set_visible(False)
    axes.xaxis.set_major_locator(NullLocator())
    grouped = any(site.groups_before is not None for site in sites)
    handles: list[Artist] = [*scale.legend(5 if grouped else 7)]
    if grouped:
        (tick,) = axes.plot([], [], color=BEFORE, lw=1.8, label="groups before")
        handles.append(tick)
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.01, 0.97),
        ncols=len(handles),
        borderaxespad=0.2,
        columnspacing=1.2,
        handlelength=1.2,
    )
    separate(axes, axis)


def draw_sizes(axes: Axes, plans: Sequence[Plan], axis: Depth) -> None:
    """One strip a plan; the color of a cell is the channels of a group."""
    scale = _Colors([site.group_size for plan in plans for site in plan.sites])
    for row, plan in enumerate(plans):
        for (x, width), site in zip(axis.norms, plan.sites, strict=True):
            axes.barh(row, width, 0.82, x - width / 2, color=scale.of(site.group_size), edgecolor=FAINT, lw=0.25)
    axes.set_ylim(len(plans) - 0.5, -0.5)
    axes.set_xlim(-0.5, axis.count - 0.5)
    for side in ("left", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.yaxis.set_major_locator(NullLocator())
    axes.xaxis.set_major_locator(NullLocator())
    axes.legend(
        handles=scale.legend(5),
        loc="lower left",
        bbox_to_anchor=(-0.01, 0.99),
        ncols=5,
        borderaxespad=0.2,
        columnspacing=0.7,
        handlelength=0.8,
        handletextpad=0.3,
    )
    separate(axes, axis)


class _Colors:
    """An ordered color for every group size: dark is small."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sorted(set(sizes))
        self.low, self.high = math.log2(self.sizes[0]), math.log2(self.sizes[-1])

    def of(self, size: int) -> tuple[float, float, float, float]:
        share = 0.5 if self.high == self.low else (math.log2(size) - self.low) / (self.high - self.low)
        red, green, blue, alpha = SIZE_COLORS(0.12 + 0.8 * share)
        return red, green, blue, alpha

    def legend(self, most: int) -> list[Patch]:
        """At most so many patches, the first with the name of what is colored; the smallest and the largest size."""
        shown = self.sizes
        if len(shown) > most:
            shown = [self.sizes[round(i * (len(self.sizes) - 1) / (most - 1))] for i in range(most)]
        texts = [f"group size {shown[0]}", *map(str, shown[1:])]
        return [
            Patch(facecolor=self.of(size), edgecolor=FAINT, lw=0.4, label=text)
            for size, text in zip(shown, texts, strict=True)
        ]
