"""The axis of depth: where weight layers, norms and stages stand, and how the stages are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from matplotlib.axes import Axes

from ..text import plural, shorten
from .stages import Stage, places, stages
from .style import FAINT, LEFT, POINTS, RIGHT, WIDTH


@dataclass(frozen=True)
class Depth:
    """The axis of depth: where weight layers, norms and stages are."""

    count: int
    weights: dict[str, float]
    norms: list[tuple[float, float]]
    """Middle and width of every norm's bar."""
    stages: list[Stage]

    @classmethod
    def of(cls, weights: Sequence[str], norms: Sequence[str]) -> Depth:
        """Return the axis of weight layers, or of the norms alone where no weight layer was measured."""
        modules = [name.rpartition(".")[0] or name for name in weights]
        at = places(modules, norms)
        spans = []
        for index, place in enumerate(at):
            beside = [other for other, where in enumerate(at) if where == place]
            width = 1 / len(beside)
            spans.append((place - 0.5 + width * (beside.index(index) + 0.5), width))
        return cls(
            count=len(weights) or len(norms),
            weights={name: float(index) for index, name in enumerate(weights)},
            norms=spans,
            stages=stages(modules or norms),
        )


def separate(axes: Axes, axis: Depth) -> None:
    """Draw a thin line between stages."""
    for stage in axis.stages[1:]:
        axes.axvline(stage.start - 0.5, color=FAINT, lw=0.6, ls=(0, (1, 2)), zorder=1)


def name_stages(axes: Axes, axis: Depth, width: float = WIDTH - LEFT - RIGHT) -> None:
    """Write the names of the stages below an axes of ``width`` inches; where there is no room, the longest ones."""
    size, slot = 9, width / axis.count
    parents = [stage.name.rpartition(".")[0] for stage in axis.stages]
    families: list[tuple[Stage, str]] = []
    for parent, members in groupby(axis.stages, key=lambda stage: stage.name.rpartition(".")[0]):
        found = list(members)
        if parent:
            families.append((Stage(parent, found[0].start, found[-1].stop), shorten(parent, 28)))
    words = [
        (stage, stage.name.rpartition(".")[2] if parent else stage.name)
        for parent, stage in zip(parents, axis.stages, strict=True)
    ]
    transform = axes.get_xaxis_transform()
    what = "weight layer" if axis.weights else "norm"
    step = 0.17 / (axes.get_position().height * axes.figure.get_figheight())  # type: ignore[union-attr]
    for row, names in ((0.35, words), (1.3, families)):
        for stage, text in _fitting(names, slot, size, width):
            middle = (stage.start + stage.stop - 1) / 2
            axes.text(middle, -row * step, text, ha="center", va="top", fontsize=size, transform=transform)
    axes.text(
        (axis.count - 1) / 2,
        -(2.4 if families else 1.5) * step,
        f"{plural(axis.count, what)} in the order in which they run",
        ha="center",
        va="top",
        transform=transform,
    )


def _fitting(words: Sequence[tuple[Stage, str]], slot: float, size: float, width: float) -> list[tuple[Stage, str]]:
    """Return the words that fit beside each other, those of long stages first; a word may reach beyond its stage."""
    placed: list[tuple[float, float]] = []
    found = []
    for stage, text in sorted(words, key=lambda word: -len(word[0])):
        middle = ((stage.start + stage.stop) / 2) * slot
        half = (0.55 * size * len(text) / POINTS) / 2 + 0.03
        if middle - half < -0.4 or middle + half > width + 0.4:
            continue
        if all(middle + half <= low or middle - half >= high for low, high in placed):
            placed.append((middle - half, middle + half))
            found.append((stage, text))
    return found
