"""Rules that turn what is known of a layer into its number of groups. No torch.

``isometric``, ``hybrid`` and ``block`` come from the theory (``docs/theory.md``); the others are what people do today,
and are here to be compared with.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable

import numpy as np

from ..errors import IdealGroupsError
from .curves import Curves
from .formulas import (
    MIN_GROUP_CHANNELS,
    MIN_GROUP_ELEMENTS,
    block_channels_per_group,
    block_group_elements,
    divisors,
)

SOLVED = ("isometric", "hybrid")
"""Strategies with a budget ε that is solved for by measurement."""

HABITS: dict[str, Callable[[int], float]] = {
    "fixed-32": lambda channels: 32,
    "gcd-32": lambda channels: math.gcd(32, channels),
    "channels-16": lambda channels: channels / 16,
    "min-32-quarter": lambda channels: min(32, channels // 4),
    "sqrt": lambda channels: math.sqrt(channels),
    "layer": lambda channels: 1,
    "instance": lambda channels: channels,
}
"""Existing methods: the number of groups wanted for C channels; :func:`largest_divisor` makes it fit."""

STRATEGIES = (*SOLVED, "block", *HABITS)
"""Every named strategy. ``fixed-N`` and ``channels-N`` are understood for any N."""

_FAMILY = re.compile(r"(fixed|channels)-([1-9]\d*)")


def check_strategy(name: str) -> None:
    """Raise :class:`IdealGroupsError`, with near matches, unless ``name`` is a strategy."""
    if name in STRATEGIES or (isinstance(name, str) and _FAMILY.fullmatch(name)):
        return
    near = difflib.get_close_matches(str(name), STRATEGIES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(STRATEGIES)}."
    raise IdealGroupsError(f"there is no strategy {name!r}; {hint}")


def largest_divisor(num_channels: int, wanted: float) -> int:
    """The largest divisor of C that is at most ``wanted``, at least 1.

    >>> largest_divisor(48, 32), largest_divisor(7, 4)
    (24, 1)
    """
    return max(d for d in divisors(num_channels) if d <= max(wanted, 1))


def habit(name: str) -> Callable[[int], float] | None:
    """The wanted number of groups as a function of C, or None for the strategies from theory."""
    if name in HABITS:
        return HABITS[name]
    family = _FAMILY.fullmatch(name)
    if family is None:
        return None
    kind, number = family[1], int(family[2])
    return (lambda channels: number) if kind == "fixed" else (lambda channels: channels / number)


def most_groups_within(curves: Curves, budget: float, min_elements: int) -> int:
    """G_l(ε): the most groups for which amplification and projection loss, each, stay within ``budget``.

    Every coarser grouping must stay within it too, and a group keeps at least two channels and ``min_elements``
    elements where C allows.
    """
    return curves.num_channels // int(curves.channels_per_group[_finest_within(curves, budget, min_elements)])


def _finest_within(curves: Curves, budget: float, min_elements: int) -> int:
    worst = np.maximum(curves.amplification, curves.projection)
    widths = curves.channels_per_group
    safe = (widths * curves.positions >= min_elements) & (widths >= MIN_GROUP_CHANNELS)
    index = len(worst) - 1
    while index > 0 and safe[index - 1] and worst[index - 1] <= budget + 1e-9:
        index -= 1
    return index


def ideal_groups(curves: Curves, budget: float, min_elements: int) -> float:
    """The real-valued number of groups at which the worse of the two gains equals ``budget`` or a group gets too small.

    Between two divisors 1 - e^-gain is taken as linear in 1/c, which is exact for the closed form of a convolution.
    """
    index = _finest_within(curves, budget, min_elements)
    chosen = curves.num_channels / float(curves.channels_per_group[index])
    if index == 0:
        return chosen
    worst = -np.expm1(-np.maximum(curves.amplification, curves.projection))
    low, high = max(float(worst[index]), 0.0), float(worst[index - 1])
    target = -math.expm1(-budget)
    finer = curves.num_channels / float(curves.channels_per_group[index - 1])
    if not math.isfinite(high) or high <= low:
        return chosen
    share = min(max((target - low) / (high - low), 0.0), 1.0)
    limit = curves.num_channels / max(MIN_GROUP_CHANNELS, min_elements / curves.positions)
    return max(chosen, min(chosen + share * (finer - chosen), limit))


def block_ideal_groups(num_channels: int, positions: int, ratio: float) -> float:
    """Real-valued groups of ``block``, free of data: r = elements in / elements out of the weight layer."""
    width = block_channels_per_group(ratio) if positions > 1 else block_group_elements(ratio)
    return min(max(num_channels / width, 1.0), float(num_channels))


def layer_budget(strategy: str, budget: float, ratio: float) -> float:
    """A layer's own budget: ε for ``isometric``, max(0, ε + log r) for ``hybrid``."""
    return budget if strategy == "isometric" else max(0.0, budget + math.log(ratio))


def safe_groups(
    num_channels: int, positions: int, num_groups: int, min_elements: int = MIN_GROUP_ELEMENTS
) -> tuple[int, str]:
    """``num_groups``, or the most groups that keep ``min_elements`` each, and a note where anything had to give."""
    total = num_channels * positions
    allowed = [g for g in divisors(num_channels) if total // g >= min(min_elements, total)]
    if total < MIN_GROUP_ELEMENTS:
        what = "the output is constant" if total == 1 else "little or no gradient passes"
        return 1, f"only {total} element{'s' * (total > 1)} to normalize: {what}, with any number of groups"
    if num_groups in allowed:
        return num_groups, ""
    best = max(g for g in allowed if g <= num_groups)
    elements = num_channels // num_groups * positions
    return best, f"{num_groups} groups would have {elements} element{'s' * (elements > 1)} each"
