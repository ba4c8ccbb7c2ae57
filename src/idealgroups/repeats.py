"""Plan several times with other seeds, and show how far each layer's number of groups moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from torch import nn

from .api import plan
from .errors import IdealGroupsError
from .markup import ranges_html
from .measuring.observation import Optimizer
from .names import short_names
from .results import Plan
from .tables import optimizer_of
from .text import columns, for_output, output_width, paragraph, room_for_names, signed
from .theory.formulas import divisors
from .theory.strategies import Strategy

HEADER = ("layer", "channels", "group size", "median")


@dataclass(frozen=True, kw_only=True)
class LayerRange:
    """The group sizes that several plans gave one layer; ``group_sizes`` in the order of the plans."""

    name: str
    num_channels: int
    group_sizes: tuple[int, ...]

    @property
    def median(self) -> float:
        """The median group size."""
        return median(self.group_sizes)

    @property
    def steps(self) -> int:
        """How many divisors of the channels lie between the smallest and the largest group size."""
        sizes = divisors(self.num_channels)
        return sizes.index(max(self.group_sizes)) - sizes.index(min(self.group_sizes))


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Several plans of one network. ``print`` it for a table of each layer's range."""

    plans: tuple[Plan, ...]

    @property
    def layers(self) -> tuple[LayerRange, ...]:
        """The range of every layer, in execution order."""
        return tuple(
            LayerRange(
                name=sites[0].name,
                num_channels=sites[0].num_channels,
                group_sizes=tuple(site.group_size for site in sites),
            )
            for sites in zip(*(one.sites for one in self.plans), strict=True)
        )

    def __str__(self) -> str:
        width, rows = output_width(), self._rows()
        names = short_names([[name] for name, *_ in rows], room_for_names(HEADER, rows, width))
        table = columns(HEADER, [[name, *numbers] for name, (_, *numbers) in zip(names, rows, strict=True)])
        return for_output("\n".join([*table, "", paragraph(self._summary(), width)]))

    def _repr_html_(self) -> str:
        return ranges_html(HEADER, self._rows(), self._summary())

    def _rows(self) -> list[list[str]]:
        return [
            [layer.name, str(layer.num_channels), _range(sorted(layer.group_sizes)), f"{layer.median:g}"]
            for layer in self.layers
        ]

    def _summary(self) -> str:
        medians = sorted(median(site.group_size for site in one.sites) for one in self.plans)
        trends = [signed(trend) for trend in sorted(one.trend_after for one in self.plans)]
        layers = self.layers
        found = (
            f"{len(self.plans)} plans: the median group size is {_range([f'{size:g}' for size in medians])}, "
            f"the trend {_range(trends)}; "
            f"{sum(layer.steps <= 1 for layer in layers)} of {len(layers)} layers move by one divisor at most"
        )
        return "; ".join([found, *optimizer_of(self.plans[:1])])


def _range(values: Sequence[object]) -> str:
    """Return the first and the last of several numbers, or the one number."""
    return f"{values[0]}" if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def repeat(
    model: nn.Module,
    inputs_of: Callable[[int], Any],
    times: int = 5,
    *,
    strategy: str | Strategy = "isometric",
    optimizer: Optimizer = "sgd",
    seed: int = 0,
    progress: bool | None = None,
) -> Repeats:
    """Plan ``times`` times, each with its own inputs and its own random projection.

    Args:
        model: as in :func:`idealgroups.plan`.
        inputs_of: a seed → example inputs.
        times: how many plans to make, two at least.
        strategy: as in :func:`idealgroups.plan`.
        optimizer: as in :func:`idealgroups.plan`.
        seed: of the first plan; the next ones count on from it.
        progress: as in :func:`idealgroups.plan`.

    Returns:
        The plans, and the range of every layer.

    Raises:
        IdealGroupsError: ``times`` is below two, the plans name different layers, or a plan cannot be made.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    >>> len(repeat(net, lambda seed: torch.randn(4, 3, 8, 8), times=3).layers[0].group_sizes)
    3
    """
    if times < 2:
        raise IdealGroupsError(f"a range needs two plans at least, got times={times}.")
    plans = tuple(
        plan(model, inputs_of(one), strategy=strategy, optimizer=optimizer, seed=one, progress=progress)
        for one in range(seed, seed + times)
    )
    names = [tuple(site.name for site in one.sites) for one in plans]
    if len(set(names)) > 1:
        raise IdealGroupsError("which normalization layers run depends on the inputs, so their plans have no range.")
    return Repeats(plans=plans)
