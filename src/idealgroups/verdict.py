"""Say in words what a plan, a measurement or a comparison means. Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .text import signed
from .theory.solve import SLACK

ISOMETRIC = 0.25
"""A trend this near to zero is called isometric. Two batches of the same network differ by 0.1 to 0.2."""

ALLOWED = -SLACK
"""The lowest trend allowed if the trend with one group is not negative."""

NEARLY_ALL, MOST = 0.05, 0.2
"""Residuals of the output up to which calibrated networks kept about 95 and 80 % of their score.

See experiments/pretrained."""


@dataclass(frozen=True, kw_only=True)
class Trends:
    """The trends that a verdict is about.

    ``before``: of the model as it was. ``after``: with the plan. ``lowest``: the lowest that the strategy allowed;
    None if the strategy does not look at the trend. ``one``: with one group in every layer, if that was measured.
    ``budget``: ε, if every layer got as many groups as it allows. ``grouped``: whether every layer of the model was
    a group norm. ``gradients``: what the trend is about. ``finest``: whether every group has two channels, the fewest
    that the rule allows.
    """

    before: float
    after: float
    lowest: float | None = None
    one: float | None = None
    budget: float | None = None
    grouped: bool = False
    gradients: str = "relative gradients"
    finest: bool = False


def measured(trend: float, gradients: str = "relative gradients") -> str:
    """Say what a trend means.

    Args:
        trend: last minus first value of the line through the logarithms of the gradients.
        gradients: what the trend is about.

    >>> measured(0.1)
    'isometric: relative gradients differ by a factor of 1.1 from the first to the last layer'
    >>> measured(-1.2)
    'not isometric: the relative gradients of the first layers are 3.3 times those of the last'
    """
    if not math.isfinite(trend):
        return "no verdict: a trend needs the gradients of at least two weight layers"
    factor = _factor(trend)
    if abs(trend) <= ISOMETRIC:
        return f"isometric: {gradients} differ by a factor of {factor} from the first to the last layer"
    large, small = ("last", "first") if trend > 0 else ("first", "last")
    return f"not isometric: the {gradients} of the {large} layers are {factor} times those of the {small}"


def to_leave(trends: Trends) -> bool:
    """Return whether a network of group norms is isometric as it is."""
    return trends.grouped and abs(trends.before) <= ISOMETRIC


def planned(trends: Trends) -> str:
    """Say what a plan achieves and, if the trend is not near zero, why.

    >>> planned(Trends(before=-2.2, after=0.1, lowest=-1.0))
    'isometric: relative gradients differ by a factor of 1.1 from the first to the last layer'
    >>> planned(Trends(before=-2.2, after=-0.4, lowest=-1.0, finest=True))
    'two channels per group everywhere: −0.40 is at least −1.00 even with the most groups that the layers can have'
    >>> planned(Trends(before=0.1, after=-0.6, lowest=-1.0, grouped=True))
    'already isometric (+0.10), nothing to gain: leave the groups as they are'
    """
    before, after, lowest = trends.before, trends.after, trends.lowest
    if not (math.isfinite(before) or math.isfinite(after)):
        return "not measured: the numbers of groups follow from the shapes alone; `idealgroups compare` measures them"
    if not math.isfinite(after):
        return measured(after, trends.gradients)
    if to_leave(trends):
        return f"already isometric ({signed(before)}), nothing to gain: leave the groups as they are"
    if abs(after) <= ISOMETRIC or lowest is None:
        return measured(after, trends.gradients)
    if trends.finest and after >= lowest:
        return (
            f"two channels per group everywhere: {signed(after)} is at least {signed(lowest)} even with the most "
            "groups that the layers can have"
        )
    if after > 0:
        nearest = trends.one is not None and trends.one >= after
        start = "as near as groups can get" if nearest else "above zero"
        return (
            f"{start}: {signed(after)}, because a plan with more groups would have groups that are too small or a "
            f"trend below {signed(lowest)}"
        )
    if after < lowest - 0.005:
        return f"too low: {signed(after)}, because no number of groups that was tried reaches {signed(lowest)}"
    if lowest < ALLOWED:
        return (
            f"within the limit: {signed(after)}; even with one group the first layers have the larger gradients, so "
            f"the trend may fall to {signed(lowest)}"
        )
    return (
        f"within the limit: {signed(after)} is at least {signed(lowest)}, and the layers have as many groups as that "
        "allows"
    )


def calibrated(residual: float | None, faithful: bool) -> str:
    """Say what to expect of a calibrated network before it is trained further.

    Args:
        residual: the squared error of the network's output against the trained one, as a share of its variance.
        faithful: whether the groups were chosen to keep what the trained network computes.

    >>> calibrated(0.01, faithful=True)
    "expect nearly all of the trained network's accuracy"
    """
    if residual is None:
        return "no verdict: the output of the calibrated network was not compared with the trained one"
    if residual <= NEARLY_ALL:
        return "expect nearly all of the trained network's accuracy"
    if residual <= MOST:
        return "expect most of the trained network's accuracy; fine-tune it"
    other = "" if faithful else "take the strategy faithful, or "
    return f"expect to lose much of the trained network's accuracy; {other}fine-tune it"


def for_scratch(said: str, trained: bool) -> str:
    """Add what a plan cannot say about trained weights.

    >>> for_scratch("isometric", trained=True)
    'isometric; trained weights: this plan is for training from scratch, and ig.convert keeps what the network knows'
    """
    if not trained:
        return said
    return (
        f"{said}; trained weights: this plan is for training from scratch, and ig.convert keeps what the network knows"
    )


def coupling(coupled: bool) -> str:
    """Say whether the samples of a batch see each other.

    >>> coupling(False)
    'samples: independent of one another, as private and federated training need'
    """
    if coupled:
        return (
            "samples: one sample changes what the network computes for the others, which private and federated "
            "training rule out"
        )
    return "samples: independent of one another, as private and federated training need"


def share(measured: float) -> str:
    """Say how much of a network a plan is about.

    >>> share(0.25)
    'measured: the gradients of 25 % of the network, without embeddings and norms'
    """
    return f"measured: the gradients of {measured:.0%} of the network, without embeddings and norms".replace("%", " %")


def chosen(rows: Sequence[Trends]) -> int:
    """Return the index of the row to take.

    First choice is a plan with one budget for all layers, then one with a limit for the trend, then the trend nearest
    to zero.
    """

    def order(index: int) -> tuple[bool, bool, float]:
        row = rows[index]
        distance = abs(row.after) if math.isfinite(row.after) else math.inf
        return row.budget is None, row.lowest is None, distance

    return min(range(len(rows)), key=order)


def compared(names: Sequence[str], rows: Sequence[Trends]) -> str:
    """Say which strategy to take, why, and which others are as isometric.

    >>> compared(["fixed-32", "layer"], [Trends(before=-2, after=-2), Trends(before=-2, after=0.1)])
    'take layer. It is isometric: relative gradients differ by a factor of 1.1 from the first to the last layer.'
    """
    index = chosen(rows)
    row = rows[index]
    if to_leave(row):
        return planned(row)
    nearest = row.lowest is None and len(rows) > 1 and abs(row.after) > ISOMETRIC
    why = f"Its trend ({signed(row.after)}) is the nearest to zero. " if nearest else ""
    bound = max(ISOMETRIC, abs(row.after)) + 0.005
    equal = [name for i, name in enumerate(names) if i != index and abs(rows[i].after) <= bound]
    also = f" As isometric: {', '.join(equal)}." if equal else ""
    return f"take {names[index]}. {why}It is {planned(row)}.{also}"


def _factor(trend: float) -> str:
    factor = math.exp(min(abs(trend), 100.0))
    return f"{factor:.1f}" if factor < 100 else f"{factor:.2g}"
