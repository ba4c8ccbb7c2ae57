"""The first rule, with which the study, the blind tests and the first zoo were made: kept to read and repeat them.

One gain budget ε for all layers, as large as the least-squares trend over all weight layers allows, with a tolerance
that depends on whether a pool hides positions. ``docs/history.md`` says what replaced it and why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np

from idealgroups.theory.curves import Curves
from idealgroups.theory.formulas import (
    MIN_FLAT_ELEMENTS,
    MIN_GROUP_CHANNELS,
    MIN_IDEAL_ELEMENTS,
    Floats,
    conv_group_size,
    fc_group_elements,
    free_projection_loss,
    pooled_projection_loss,
)
from idealgroups.theory.grouping import largest_divisor, safe_groups
from idealgroups.theory.layer import Choice, Layer, Observe
from idealgroups.theory.strategies import GroupSize, Strategy, parse_strategy

Groups = Mapping[str, int]
Pick = Callable[[Mapping[str, Curves], float], Groups]
"""(curves of every layer, ε) → groups of every layer."""

ISOMETRY_TOLERANCE = 0.25
"""δ. The trend of log u may fall this far below zero. Between two batches the trend of one network moves by about 0.1
to 0.2, so a smaller δ would be lost in that noise; and networks whose trend hardly depends on the groups, where
training likes more groups, would get one group for a trend that is zero but for noise."""

TREND_ERRORS = 0.5
"""δ is at least this many standard errors of the trend: where log u scatters widely about its line, or there are few
layers, a smaller deviation from zero says nothing. In ResNet-50 that is 0.23, in MobileNets and small networks more."""

POSITION_TOLERANCE = math.log(10)
"""δ where the loss sees every position for itself (segmentation, denoising, flattened maps). Such networks train the
better the smaller the groups are, until the trend is about -3: relative gradients within a factor of ten, then."""

MAX_BUDGET = math.log(2)
"""The largest ε tried: no layer may more than double the squared gradient, or lose more than half of it. Small plain
networks, residual ones and DenseNets cross zero between 0.4 and 0.6; what does not cross below 0.69 hardly depends on
the groups."""

MAX_HALVINGS = 7
"""How often the budget is halved in search of isometry: below 0.69 / 2^7 = 0.005 nearly every layer has one group."""

MAX_STEPS = 6
"""Most evaluations between the last two budgets; the trend is nearly linear in ε there, so one to three are usual."""

CLOSE_ENOUGH = 0.1
"""The solve stops at a trend in [-δ, -δ + 0.1], or when ε is known to :data:`RESOLUTION`: the noise of one batch."""

RESOLUTION = 0.02
"""Relative precision of ε. In ResNet-50 at 224 px many layers step from 16 to 8 channels within 4% of ε."""

NEAR_ENOUGH = 0.4
"""Trends that differ by less belong to networks whose curves are interchangeable."""


@dataclass(frozen=True)
class Target:
    """What counts as isometric, and how far the budget may go; other values than these are for studies of them.

    ``position_tolerance`` is δ where the loss sees positions, ``tolerance`` where a pool hides them, either at least
    ``trend_errors`` standard errors of the trend. ``min_elements`` is the least size of a group, ``min_flat_elements``
    where a channel has one position only.
    """

    tolerance: float = ISOMETRY_TOLERANCE
    position_tolerance: float = POSITION_TOLERANCE
    trend_errors: float = TREND_ERRORS
    max_budget: float = MAX_BUDGET
    min_elements: int = MIN_IDEAL_ELEMENTS
    min_flat_elements: int = MIN_FLAT_ELEMENTS

    def least(self, flat: bool) -> int:
        """The least number of elements in a group of a layer."""
        return self.min_flat_elements if flat else self.min_elements


class Measured(Protocol):
    """What the solve needs to know of one pass."""

    @property
    def curves(self) -> Mapping[str, Curves]:
        """Curves of every layer under the groups of this pass, in execution order."""

    @property
    def trend(self) -> float:
        """T under the groups of this pass."""

    @property
    def trend_error(self) -> float:
        """Standard error of T."""


M = TypeVar("M", bound=Measured)


@dataclass(frozen=True)
class Point(Generic[M]):
    """A budget, the curves and the groups that follow from both, and what was measured with exactly these groups."""

    budget: float
    curves: Mapping[str, Curves]
    groups: Groups
    measured: M


@dataclass(frozen=True)
class Solution(Generic[M]):
    """The chosen point, and the lowest trend allowed: -δ, or below that where no number of groups reaches it.

    ``tolerance`` is δ; ``pooled``: whether the loss sees only a mean over positions, on which δ depends.
    """

    point: Point[M]
    pooled: bool
    tolerance: float
    lowest_trend: float


def solve(
    observe: Callable[[Groups], M],
    layer_budget: Callable[[str, float], float],
    lowest: float,
    one_group: Groups,
    target: Target = Target(),
) -> Solution[M]:
    """The largest ε in [``lowest``, ``target.max_budget``] with T(ε) ≥ -δ; one group where every ε is worse.

    Which δ depends on whether the last layer's gradient came through a global pool (:func:`sees_only_the_mean`). If no
    budget reaches -δ, not even one group, groups cannot mend the trend, and it does not forbid them: then
    T(ε) ≥ T_best - δ, with the δ of a global pool. The trend need not fall monotonically with ε, so the search comes
    from above: the budget is halved until the network is isometric, and the last step is refined.

    Args:
        observe: one forward and backward pass with given groups.
        layer_budget: (layer, ε) → that layer's own budget.
        lowest: ε at which every layer has one group.
        one_group: {layer: 1} for the layers that get groups; others may have curves too.
        target: δ and the largest ε.
    """

    def pick(curves: Mapping[str, Curves], budget: float) -> Groups:
        return {
            name: most_groups_within(curve, layer_budget(name, budget), target.least(curve.flat))
            for name, curve in curves.items()
            if name in one_group
        }

    measured = observe(one_group)
    pooled = sees_only_the_mean(list(measured.curves.values())[-1])
    slack = max(target.tolerance, target.trend_errors * measured.trend_error)
    tolerance = slack if pooled else max(target.position_tolerance, slack)
    start = point = Point(lowest, measured.curves, one_group, measured)
    points: list[Point[M]] = []
    for halving in range(MAX_HALVINGS + 1):
        budget = lowest + (target.max_budget - lowest) / 2**halving
        point = _evaluate(budget, point, observe, pick)
        points.append(point)
        if point.measured.trend >= -tolerance:
            break
    best = max(point.measured.trend for point in (start, *points))
    floor = -tolerance if best >= -tolerance else best - slack
    chosen = next((i for i, point in enumerate(points) if point.measured.trend >= floor), None)
    if chosen is None:
        point = start
    elif chosen == 0:
        point = points[0]
    else:
        point = _refine(points[chosen], points[chosen - 1], floor, observe, pick)
    return Solution(point, pooled, tolerance, floor)


def _refine(
    good: Point[M],
    bad: Point[M],
    floor: float,
    observe: Callable[[Groups], M],
    pick: Pick,
) -> Point[M]:
    """The largest budget with T ≥ ``floor`` between one that has it and a larger one that has not: regula falsi."""
    moved: list[bool] = []
    for _ in range(MAX_STEPS):
        excess = good.measured.trend - floor
        resolved = bad.budget - good.budget <= RESOLUTION * abs(bad.budget)
        if good.groups == bad.groups or excess <= CLOSE_ENOUGH or resolved:
            break
        share = (excess - CLOSE_ENOUGH / 2) / (good.measured.trend - bad.measured.trend)
        if len(moved) > 1 and moved[-1] == moved[-2]:
            share = 0.5  # one end stands still: the trend is not linear here
        budget = good.budget + min(max(share, 0.1), 0.9) * (bad.budget - good.budget)
        point = _evaluate(budget, good if share < 0.5 else bad, observe, pick)
        moved.append(point.measured.trend >= floor)
        good, bad = (point, bad) if moved[-1] else (good, point)
    return good


def _evaluate(budget: float, near: Point[M], observe: Callable[[Groups], M], pick: Pick) -> Point[M]:
    """The groups for ``budget`` and what they do.

    The curves of a layer depend on the groups of all others, so the groups come from the curves of a point ``near`` by,
    and once more from their own where that was not near enough. As the bracket shrinks it always is.
    """
    curves = near.measured.curves
    groups = pick(curves, budget)
    if groups == near.groups:
        return Point(budget, curves, groups, near.measured)
    measured = observe(groups)
    if abs(measured.trend - near.measured.trend) > NEAR_ENOUGH:
        curves = measured.curves
        again = pick(curves, budget)
        if again != groups:
            groups, measured = again, observe(again)
    return Point(budget, curves, groups, measured)


def sees_only_the_mean(curve: Curves) -> bool:
    """Return whether the loss sees only the mean over positions of the last layer, as behind a global average pool."""
    if curve.positions <= 2:
        return True
    return bool(curve.projection[0] - free_projection_loss(curve.positions) > pooled_projection_loss(2))


def most_groups_within(curves: Curves, budget: float, min_elements: int) -> int:
    """Return the most groups for which amplification and projection loss, each, stay within ``budget``."""
    worst, sizes = np.maximum(curves.amplification, curves.projection), curves.group_sizes
    safe = (sizes * curves.positions >= min_elements) & (sizes >= MIN_GROUP_CHANNELS)
    index = len(worst) - 1
    while index > 0 and safe[index - 1] and worst[index - 1] <= budget + 1e-9:
        index -= 1
    return curves.num_channels // int(sizes[index])


def trend(log_u: Floats) -> float:
    """Return the last minus the first value of the least-squares line, 0 for fewer than two."""
    n = len(log_u)
    if n < 2:
        return 0.0
    x = np.arange(n) - (n - 1) / 2
    return float((n - 1) * (x @ log_u) / (x @ x))


def trend_error(log_u: Floats) -> float:
    """Return the standard error of :func:`trend` from the residuals of its line, 0 for fewer than three."""
    n = len(log_u)
    if n < 3:
        return 0.0
    x = np.arange(n) - (n - 1) / 2
    residuals = log_u - np.mean(log_u) - x * (x @ log_u) / (x @ x)
    return float((n - 1) * np.sqrt(residuals @ residuals / (n - 2) / (x @ x)))


@dataclass(frozen=True)
class _Seen:
    """One pass as the first rule sees it: the least-squares line through all weight layers."""

    passed: Any
    log_u: Floats

    @property
    def curves(self) -> Mapping[str, Curves]:
        return dict(self.passed.curves)

    @property
    def trend(self) -> float:
        return trend(self.log_u)

    @property
    def trend_error(self) -> float:
        return trend_error(self.log_u)


@dataclass(frozen=True)
class FirstRule:
    """``isometric`` as it was, or ``hybrid``: each layer's budget is max(0, ε + log r)."""

    hybrid: bool = False
    target: Target = field(default_factory=Target)
    closed: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """``first-isometric`` or ``first-hybrid``."""
        return "first-hybrid" if self.hybrid else "first-isometric"

    def choose(self, layers: Sequence[Layer], observe: Observe[Any]) -> Choice[Any]:
        """Solve for ε."""
        ratios = {layer.name: layer.ratio for layer in layers}

        def see(groups: Groups) -> _Seen:
            passed = observe(groups, True)
            return _Seen(passed, np.log(np.array([layer.relative for layer in passed.gradients])))

        def budget_of(name: str, epsilon: float) -> float:
            return max(0.0, epsilon + math.log(ratios[name])) if self.hybrid else epsilon

        lowest = min(0.0, *(-math.log(ratio) for ratio in ratios.values())) if self.hybrid else 0.0
        solution = solve(see, budget_of, lowest, dict.fromkeys(ratios, 1), self.target)
        groups = {name: solution.point.groups[name] for name in ratios}
        return Choice(
            groups=groups,
            ideals={name: float(number) for name, number in groups.items()},
            budget=solution.point.budget,
            lowest_trend=solution.lowest_trend,
            measured=solution.point.measured.passed,
        )


@dataclass(frozen=True)
class FirstBlock:
    """``block`` as it was: the closed form of a convolution with many positions, inverted."""

    target: Target = field(default_factory=Target)
    closed: ClassVar[bool] = True
    name: ClassVar[str] = "first-block"

    def choose(self, layers: Sequence[Layer], observe: Observe[Any]) -> Choice[Any]:
        """Invert ``conv_gain`` or ``fc_gain``."""
        groups, ideals = {}, {}
        for layer in layers:
            invert = conv_group_size if layer.positions > 1 else fc_group_elements
            size = invert(math.log(layer.ratio)) if layer.ratio > 1 else math.inf
            ideals[layer.name] = min(max(layer.num_channels / size, 1.0), float(layer.num_channels))
            wanted = largest_divisor(layer.num_channels, ideals[layer.name])
            least = self.target.least(layer.flat)
            groups[layer.name] = safe_groups(layer.num_channels, layer.positions, wanted, least)[0]
        return Choice(groups, ideals)


def strategy_named(name: str) -> Strategy:
    """Return the strategy of a name in the results that were made with the first rule.

    ``isometric`` and ``block`` are today's; ``hybrid`` and ``channels-N`` (today ``group-size-N``) have gone.
    """
    if name == "hybrid":
        return FirstRule(hybrid=True)
    if match := re.fullmatch(r"channels-([1-9]\d*)", name):
        return GroupSize(int(match[1]))
    return parse_strategy(name)
