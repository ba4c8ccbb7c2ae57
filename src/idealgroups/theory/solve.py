"""The one-dimensional search: as many groups as keep the trend T at or above its limit. NumPy only.

The candidates form a family that is ordered from one group in every layer to the most groups that are allowed. They
come from the curves of the pass with one group, so a pass that checks a candidate needs no curves of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol

import numpy as np
from numpy.typing import NDArray

from .curves import Curves
from .formulas import Floats, divisors
from .grouping import least_elements, thresholds
from .layer import Groups, Layer, M, Observe

SLACK = 1.0
"""How far T may fall below zero, or below T of one group if that is negative: one e-fold."""

PRIVATE_SLACK = 0.0
"""The same with DP-SGD, where T is about signal over noise: with 1, pilots lose 3 to 22 points of accuracy."""

ARRIVES = 1 / 3
"""The first guess of how much of the predicted fall arrives in T; measured passes replace it."""

CLOSE_ENOUGH = 0.1
"""The search stops at most this far above the limit: between two batches T of one network moves by 0.1 to 0.2."""

MAX_CHECKS = 5
"""Most passes after the one with one group, unless all of them are below the limit."""

MAX_HALVINGS = 3
"""Most passes after that: a trend that falls steeply at first lies below the limit for all straight lines, and the
answer is not one group for want of passes."""


class Family(Protocol):
    """Candidates in the order of their number of groups; the first has one group everywhere."""

    def __len__(self) -> int:
        """Return the number of candidates."""

    def groups(self, index: int) -> Groups:
        """Return the groups of every layer."""

    def falls(self, curves: Mapping[str, Curves]) -> Floats:
        """Return :func:`predicted_fall` of every candidate."""


@dataclass(frozen=True)
class Budgets:
    """All groupings that one budget ε for every layer can give: a candidate for each ε at which a layer changes."""

    num_channels: Mapping[str, int]
    group_sizes: Mapping[str, NDArray[np.int64]]
    needed: Mapping[str, Floats]
    values: Floats

    @classmethod
    def of(cls, curves: Mapping[str, Curves]) -> Budgets:
        """Collect the budgets at which the groups of some layer change."""
        needed = {name: thresholds(curve) for name, curve in curves.items()}
        finite = [budgets[np.isfinite(budgets)] for budgets in needed.values()]
        return cls(
            num_channels={name: curve.num_channels for name, curve in curves.items()},
            group_sizes={name: curve.group_sizes for name, curve in curves.items()},
            needed=needed,
            values=np.unique(np.concatenate([np.zeros(1), *finite])),
        )

    def __len__(self) -> int:
        """Return the number of budgets."""
        return len(self.values)

    def groups(self, index: int) -> Groups:
        """Return the most groups within the budget ``values[index]``."""
        return {
            name: channels // int(self.group_sizes[name][self._finest(name)[index]])
            for name, channels in self.num_channels.items()
        }

    def falls(self, curves: Mapping[str, Curves]) -> Floats:
        """Return :func:`predicted_fall` of every budget."""
        total: Floats = sum((curves[name].amplification[self._finest(name)] for name in self.needed), np.zeros(1))
        return total / 2

    def _finest(self, name: str) -> NDArray[np.int64]:
        """Return for every budget the index of the smallest group size that it allows the layer."""
        needed = self.needed[name]
        return len(needed) - np.searchsorted(needed[::-1], self.values + 1e-9, side="right")


@dataclass(frozen=True)
class Numbers:
    """One number for all layers, a candidate for each number that divides every width and leaves groups large enough.

    Layers with one position (fully connected ones) do not restrict the number: they take the largest divisor of their
    own channels up to it that leaves 128 elements in a group.
    """

    layers: tuple[Layer, ...]
    values: tuple[int, ...]

    @classmethod
    def of(cls, layers: tuple[Layer, ...]) -> Numbers:
        """Collect the numbers of groups that all layers can have."""
        counted = [layer for layer in layers if not layer.flat] or list(layers)
        common = divisors(int(np.gcd.reduce([layer.num_channels for layer in counted])))
        return cls(layers, tuple(g for g in common if all(_fits(layer, g) for layer in counted)))

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.values)

    def groups(self, index: int) -> Groups:
        """Return ``values[index]`` groups for every layer that can have them."""
        return {layer.name: _at_most(layer, self.values[index]) for layer in self.layers}

    def falls(self, curves: Mapping[str, Curves]) -> Floats:
        """Return :func:`predicted_fall` of every number."""
        return np.array([predicted_fall(curves, self.groups(i)) for i in range(len(self))])


@dataclass(frozen=True)
class Sizes:
    """One group size for all layers: a candidate for each size that divides every width, the largest first.

    The first candidate is one group everywhere. Layers with one position are treated as in :class:`Numbers`.
    """

    layers: tuple[Layer, ...]
    values: tuple[int | None, ...]

    @classmethod
    def of(cls, layers: tuple[Layer, ...]) -> Sizes:
        """Collect the group sizes that all layers can have."""
        counted = [layer for layer in layers if not layer.flat] or list(layers)
        common = divisors(int(np.gcd.reduce([layer.num_channels for layer in counted])))
        sizes = [c for c in reversed(common) if all(_fits(layer, layer.num_channels // c) for layer in counted)]
        return cls(layers, (None, *sizes))

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.values)

    def groups(self, index: int) -> Groups:
        """Return groups of ``values[index]`` channels for every layer that can have them."""
        size = self.values[index]
        return {layer.name: 1 if size is None else _at_most(layer, layer.num_channels // size) for layer in self.layers}

    def falls(self, curves: Mapping[str, Curves]) -> Floats:
        """Return :func:`predicted_fall` of every size."""
        return np.array([predicted_fall(curves, self.groups(i)) for i in range(len(self))])


def _fits(layer: Layer, num_groups: int) -> bool:
    """Return whether the groups keep two channels and 32 (128) elements, or are one."""
    size = layer.num_channels // num_groups
    return num_groups == 1 or (size >= 2 and size * layer.positions >= least_elements(layer.flat))


def _at_most(layer: Layer, num_groups: int) -> int:
    return max(g for g in divisors(layer.num_channels) if g <= max(num_groups, 1) and _fits(layer, g))


def predicted_fall(curves: Mapping[str, Curves], groups: Groups) -> float:
    """Return Σ A/2 over layers: how far T would fall if every layer's amplification reached the first weight whole."""
    return sum(float(curves[name].amplification[curves[name].at(number)]) for name, number in groups.items()) / 2


@dataclass(frozen=True)
class Solution(Generic[M]):
    """The chosen candidate of the family, its pass, and the lowest T allowed.

    ``falls`` and ``trends``: what was predicted and measured in all passes, in ascending order of the former.
    """

    index: int
    measured: M
    lowest_trend: float
    falls: Floats
    trends: Floats

    def expected_trend(self, fall: float) -> float:
        """Return T between the measured candidates, linear in the predicted fall."""
        return float(np.interp(fall, self.falls, self.trends))


def limit(one_group_trend: float, slack: float = SLACK) -> float:
    """Return the lowest T allowed: ``slack`` below zero, or below T of one group where that is negative.

    >>> limit(0.4), limit(-0.5)
    (-1.0, -1.5)
    """
    return min(0.0, one_group_trend) - slack


def solve(observe: Observe[M], family: Family, one: M, slack: float | None = None) -> Solution[M]:
    """Find the candidate with the most groups that keeps T at or above :func:`limit`.

    T need not fall everywhere as groups get smaller, but at one group it is above the limit by definition. So a
    candidate above and one below always enclose a crossing, and regula falsi in the predicted fall finds it.

    Args:
        observe: makes one forward and backward pass with given groups.
        family: the candidates.
        one: the pass with one group in every layer, with curves.
        slack: how far T may fall; default what is right for the optimizer.
    """
    floor = limit(one.trend, one.slack if slack is None else slack)
    falls = np.maximum.accumulate(family.falls(one.curves))
    passes: dict[int, M] = {0: one}
    good, bad, last = 0, len(family), len(family) - 1
    wanted = falls[0] + (one.trend - floor) / ARRIVES
    for _ in range(MAX_CHECKS):
        if bad - good <= 1 or (good > 0 and passes[good].trend <= floor + CLOSE_ENOUGH):
            break
        index = min(max(int(np.searchsorted(falls, wanted)), good + 1), min(bad - 1, last))
        passes[index] = observe(family.groups(index), False)
        if passes[index].trend >= floor:
            good = index
        else:
            bad = index
        wanted = _next(falls, {i: seen.trend for i, seen in passes.items()}, good, bad, floor)
    for _ in range(MAX_HALVINGS):
        if good > 0 or bad <= 1:
            break
        index = min(max(int(np.searchsorted(falls, falls[bad] / 2)), 1), bad - 1)
        passes[index] = observe(family.groups(index), False)
        good, bad = (index, bad) if passes[index].trend >= floor else (0, index)
    tried = sorted(passes)
    return Solution(good, passes[good], floor, falls[tried], np.array([passes[i].trend for i in tried]))


def _next(falls: Floats, trends: Mapping[int, float], good: int, bad: int, floor: float) -> float:
    """Return the predicted fall at which a straight line through two passes meets the middle of the tolerance."""
    target = floor + CLOSE_ENOUGH / 2
    if bad < len(falls):
        share = (trends[good] - target) / (trends[good] - trends[bad])
        return float(falls[good] + min(max(share, 0.1), 0.9) * (falls[bad] - falls[good]))
    done, ahead = trends[0] - trends[good], trends[good] - target
    share = ahead / done if done > max(0.01 * ahead, 0.0) else np.inf
    return float(falls[good] + max(share, 0.5) * (falls[good] - falls[0]))
