"""From a wanted number of groups or a budget to a divisor of the channels; how small groups may be. No torch."""

from __future__ import annotations

import math

import numpy as np

from .curves import Curves
from .formulas import MIN_FLAT_ELEMENTS, MIN_GROUP_CHANNELS, MIN_GROUP_ELEMENTS, MIN_IDEAL_ELEMENTS, Floats, divisors


def least_elements(flat: bool) -> int:
    """Return the least number of elements that a strategy from theory leaves a group."""
    return MIN_FLAT_ELEMENTS if flat else MIN_IDEAL_ELEMENTS


def largest_divisor(num_channels: int, wanted: float) -> int:
    """Return the largest divisor of C that is at most ``wanted``, at least 1.

    >>> largest_divisor(48, 32), largest_divisor(7, 4)
    (24, 1)
    """
    return max(d for d in divisors(num_channels) if d <= max(wanted, 1))


def thresholds(curves: Curves) -> Floats:
    """Return the budget ε from which on a layer may have each of its divisors c, shape (D,), falling with c.

    A grouping needs the larger of amplification and projection loss, and so does every coarser one. It is infinite
    where a group would have one channel or too few elements.
    """
    sizes = curves.group_sizes
    worst = np.maximum(curves.amplification, curves.projection)
    worst[-1] = 0.0
    unsafe = (sizes * curves.positions < least_elements(curves.flat)) | (sizes < MIN_GROUP_CHANNELS)
    unsafe[-1] = False
    needed: Floats = np.maximum.accumulate(np.where(unsafe, np.inf, np.maximum(worst, 0.0))[::-1])[::-1]
    return needed


def most_groups_within(curves: Curves, budget: float) -> int:
    """Return G(ε): the most groups for which amplification and projection loss, each, stay within ``budget``.

    Every coarser grouping must stay within it too, and a group keeps at least two channels and
    :func:`least_elements` where the layer has them.
    """
    return curves.num_channels // int(curves.group_sizes[_finest_within(curves, budget)])


def _finest_within(curves: Curves, budget: float) -> int:
    return int(np.argmax(thresholds(curves) <= budget + 1e-9))


def ideal_groups(curves: Curves, budget: float) -> float:
    """Return the real-valued number of groups at which the worse gain equals ``budget`` or a group gets too small.

    Between two divisors 1 - e^-gain is taken as linear in 1/c, which is exact for the closed form of a convolution.
    """
    index = _finest_within(curves, budget)
    chosen = curves.num_channels / float(curves.group_sizes[index])
    if index == 0:
        return chosen
    worst = -np.expm1(-np.maximum(curves.amplification, curves.projection))
    low, high = max(float(worst[index]), 0.0), float(worst[index - 1])
    target = -math.expm1(-budget)
    finer = curves.num_channels / float(curves.group_sizes[index - 1])
    if not math.isfinite(high) or high <= low:
        return chosen
    share = min(max((target - low) / (high - low), 0.0), 1.0)
    smallest = max(MIN_GROUP_CHANNELS, least_elements(curves.flat) / curves.positions)
    return max(chosen, min(chosen + share * (finer - chosen), curves.num_channels / smallest))


def safe_groups(
    num_channels: int, positions: int, num_groups: int, min_elements: int = MIN_GROUP_ELEMENTS
) -> tuple[int, str]:
    """Return ``num_groups``, or the most groups that keep ``min_elements`` each, and a note if it was reduced."""
    total = num_channels * positions
    allowed = [g for g in divisors(num_channels) if total // g >= min(min_elements, total)]
    if total < MIN_GROUP_ELEMENTS:
        what = "the output is constant" if total == 1 else "little or no gradient passes"
        size = "1 element" if total == 1 else f"{total} elements"
        return 1, f"only {size} to normalize: {what}, with any number of groups"
    if num_groups in allowed:
        return num_groups, ""
    best = max(g for g in allowed if g <= num_groups)
    elements = num_channels // num_groups * positions
    size = "1 element" if elements == 1 else f"{elements} elements"
    return best, f"{num_groups} groups would have {size} each"
