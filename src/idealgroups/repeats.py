"""Plan several times with other seeds, and show how far each layer's number of groups moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from torch import nn

from .api import plan
from .errors import IdealGroupsError
from .measuring.observation import Optimizer
from .results import Plan
from .text import output_width, paragraph, signed
from .theory.formulas import divisors
from .theory.strategies import Strategy


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
        layers = self.layers
        width = max(len("layer"), *(len(layer.name) for layer in layers))
        lines = [f"{'layer':<{width}}  channels  group size  median"]
        for layer in layers:
            low, high = min(layer.group_sizes), max(layer.group_sizes)
            sizes = _range([str(low), str(high)])
            lines.append(f"{layer.name:<{width}}  {layer.num_channels:>8}  {sizes:>10}  {layer.median:>6g}")
        medians = sorted(median(site.group_size for site in one.sites) for one in self.plans)
        trends = sorted(one.trend_after for one in self.plans)
        summary = (
            f"{len(self.plans)} plans: the median group size is {_range([f'{size:g}' for size in medians])}, "
            f"the trend {_range([signed(trend) for trend in trends])}; "
            f"{sum(layer.steps <= 1 for layer in layers)} of {len(layers)} layers move by one divisor at most"
        )
        return "\n".join([*lines, "", paragraph(summary, output_width())])


def _range(texts: Sequence[str]) -> str:
    """Return the first and the last of several numbers, or the one number."""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


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
