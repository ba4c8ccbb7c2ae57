"""A strategy as a study writes it: a rule, and behind an ``@`` the one thing that an ablation changes about it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import IdealGroupsError
from ..solve import ISOMETRY_TOLERANCE, Target
from ..strategies import SOLVED, check_strategy

SOURCES = ("data", "pink", "noise")
"""What a plan is measured on: training images, 1/f noise or white noise."""

TOLERANCE = "delta="


@dataclass(frozen=True)
class Variant:
    """``rule`` is a strategy of the library, planned on ``source`` with the tolerance δ (``inf``: the cap alone)."""

    rule: str
    source: str = "data"
    tolerance: float = ISOMETRY_TOLERANCE

    @property
    def target(self) -> Target:
        """What the solve aims at."""
        return Target(tolerance=self.tolerance)


def parse(strategy: str) -> Variant:
    """Read ``rule``, ``rule@source`` or ``rule@delta=NUMBER``.

    Raises:
        IdealGroupsError: no such rule, or nothing that can be changed about it.

    >>> parse("isometric@noise")
    Variant(rule='isometric', source='noise', tolerance=0.25)
    >>> parse("hybrid@delta=1").target.tolerance
    1.0
    """
    rule, at, changed = strategy.partition("@")
    check_strategy(rule)
    if not at:
        return Variant(rule)
    if changed in SOURCES:
        return Variant(rule, source=changed)
    if changed.startswith(TOLERANCE) and rule in SOLVED:
        return Variant(rule, tolerance=_tolerance(changed.removeprefix(TOLERANCE), strategy))
    raise IdealGroupsError(
        f"cannot plan {strategy!r}; write {', '.join(SOURCES)} or, for {' and '.join(sorted(SOLVED))}, "
        f"{TOLERANCE}NUMBER behind the @."
    )


def base(strategy: str) -> str:
    """The strategy without what an ablation changes.

    >>> base("isometric@noise")
    'isometric'
    """
    return strategy.partition("@")[0]


def _tolerance(text: str, strategy: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise IdealGroupsError(f"{strategy!r} needs a number behind {TOLERANCE}, {text!r} is none.")
    return value
