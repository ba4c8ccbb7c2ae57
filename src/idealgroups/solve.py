"""The one-dimensional solve: one gain budget ε for all layers, as large as end-to-end isometry allows."""

from __future__ import annotations

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

MAX_STEPS = 7
"""Most evaluations between the ends of the bracket. The trend is nearly linear in ε, so two or three are usual."""

CLOSE_ENOUGH = 0.1
"""The solve stops at a trend in [-δ, -δ + 0.1], or when ε is known to :data:`RESOLUTION`: the noise of one batch."""

RESOLUTION = 0.04
"""Relative precision of ε."""

NEAR_ENOUGH = 0.4
"""Trends that differ by less belong to networks whose curves are interchangeable."""


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
    """The largest ε in [``lowest``, :data:`MAX_BUDGET`] with T(ε) ≥ -δ, between one group and as many as may be.

    Regula falsi in ε, safeguarded by bisection.

    Args:
        observe: one forward and backward pass with given groups.
        layer_budget: (layer, ε) → that layer's own budget.
        lowest: ε at which every layer has one group.
        one_group: {layer: 1}.
    """
    start = observe(one_group)
    good = Point(lowest, one_group, start)
    if start.trend < -ISOMETRY_TOLERANCE:
        return good
    bad = _evaluate(MAX_BUDGET, good, observe, layer_budget)
    if bad.measured.trend >= -ISOMETRY_TOLERANCE:
        return bad
    moved: list[str] = []
    for _ in range(MAX_STEPS):
        excess = good.measured.trend + ISOMETRY_TOLERANCE
        resolved = bad.budget - good.budget <= RESOLUTION * abs(bad.budget)
        if good.groups == bad.groups or excess <= CLOSE_ENOUGH or resolved:
            break
        share = (excess - CLOSE_ENOUGH / 2) / (good.measured.trend - bad.measured.trend)
        if moved[-2:] in (["good"] * 2, ["bad"] * 2):
            share = 0.5  # one end stands still: the trend is not linear here
        budget = good.budget + min(max(share, 0.1), 0.9) * (bad.budget - good.budget)
        point = _evaluate(budget, good if share < 0.5 else bad, observe, layer_budget)
        if point.measured.trend >= -ISOMETRY_TOLERANCE:
            good = point
            moved.append("good")
        else:
            bad = point
            moved.append("bad")
    return good


def _evaluate(
    budget: float, near: Point, observe: Callable[[Groups], Measured], layer_budget: Callable[[str, float], float]
) -> Point:
    """The groups for ``budget`` and what they do.

    The curves of a layer depend on the groups of all others, so the groups come from the curves of a point ``near`` by,
    and once more from their own where that was not near enough. As the bracket shrinks it always is.
    """
    groups = choose(near.measured, budget, layer_budget)
    if groups == near.groups:
        return Point(budget, groups, near.measured)
    measured = observe(groups)
    if abs(measured.trend - near.measured.trend) > NEAR_ENOUGH:
        again = choose(measured, budget, layer_budget)
        if again != groups:
            groups, measured = again, observe(again)
    return Point(budget, groups, measured)


def choose(measured: Measured, budget: float, layer_budget: Callable[[str, float], float]) -> Groups:
    """G_l(ε) of every layer, from the curves of one pass."""
    return {name: most_groups_within(curve, layer_budget(name, budget)) for name, curve in measured.curves.items()}
