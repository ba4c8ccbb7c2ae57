"""The one-dimensional solve: one gain budget ε for all layers, as large as end-to-end isometry allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from .curves import Curves
from .strategies import most_groups_within
from .theory import conv_gain

Groups = Mapping[str, int]

ISOMETRY_TOLERANCE = 0.25
"""δ. The trend of log u may fall this far below zero. Between two batches the trend of one network moves by about 0.1
to 0.2, so a smaller δ would be lost in that noise; and networks whose trend hardly depends on the groups, where
training likes more groups, would get one group for a trend that is zero but for noise."""

MAX_BUDGET = conv_gain(1)
"""The largest ε tried: what instance norm gains behind a ReLU, log(π/(π-1)) = 0.38. Beyond it a layer would lose or
gain more than any grouping of an ordinary convolution does."""

MIN_BUDGET = 0.005
"""The smallest ε worth trying; below it nearly every layer has one group."""

MAX_STEPS = 7
"""Most halvings of the bracket, on the scale of log ε: 0.38 / 0.005 = 2^6.3, so ε is found within 4 percent."""

CLOSE_ENOUGH = 0.05
"""The solve stops at a trend in [-δ, -δ + 0.05]: closer is within the noise of a batch."""


class Measured(Protocol):
    """What the solve needs to know of one pass."""

    @property
    def curves(self) -> Mapping[str, Curves]:
        """Curves of every layer under the groups of this pass."""

    @property
    def trend(self) -> float:
        """T under the groups of this pass."""


@dataclass(frozen=True)
class Point:
    """A budget, the groups that follow from it, and what was measured with exactly these groups."""

    budget: float
    groups: Groups
    measured: Measured


def solve(
    observe: Callable[[Groups], Measured],
    layer_budget: Callable[[str, float], float],
    lowest: float,
    one_group: Groups,
) -> Point:
    """The largest ε in [``lowest``, :data:`MAX_BUDGET`] with T(ε) ≥ -δ, by bisection; one group if there is none.

    Args:
        observe: one forward and backward pass with given groups.
        layer_budget: (layer, ε) → that layer's own budget.
        lowest: ε at which every layer has one group, or nearly so.
        one_group: {layer: 1}.
    """
    start = observe(one_group)
    good = Point(0.0 if lowest > 0 else lowest, one_group, start)
    if start.trend < -ISOMETRY_TOLERANCE:
        return good
    first = _evaluate(MAX_BUDGET, start, observe, layer_budget)
    bad = _evaluate(MAX_BUDGET, first.measured, observe, layer_budget)
    if bad.measured.trend >= -ISOMETRY_TOLERANCE:
        return bad
    low, high = lowest, MAX_BUDGET
    for _ in range(MAX_STEPS):
        if good.groups == bad.groups or good.measured.trend <= -ISOMETRY_TOLERANCE + CLOSE_ENOUGH:
            break
        middle = math.sqrt(low * high) if low > 0 else (low + high) / 2
        # The curves depend on the groups of all layers. Those of the nearer end of the bracket serve for the middle,
        # and as the bracket shrinks they become its own: the fixed point costs no passes of its own.
        near = min((good, bad), key=lambda end: abs(end.measured.trend + ISOMETRY_TOLERANCE))
        point = _evaluate(middle, near.measured, observe, layer_budget)
        if point.measured.trend >= -ISOMETRY_TOLERANCE:
            good, low = point, middle
        else:
            bad, high = point, middle
    return good


def _evaluate(
    budget: float, near: Measured, observe: Callable[[Groups], Measured], layer_budget: Callable[[str, float], float]
) -> Point:
    groups = choose(near, budget, layer_budget)
    return Point(budget, groups, observe(groups))


def choose(measured: Measured, budget: float, layer_budget: Callable[[str, float], float]) -> Groups:
    """G_l(ε) of every layer, from the curves of one pass."""
    return {name: most_groups_within(curve, layer_budget(name, budget)) for name, curve in measured.curves.items()}
