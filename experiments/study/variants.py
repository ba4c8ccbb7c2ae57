"""A strategy as a study writes it: a rule, and behind an ``@`` the one thing that an ablation changes about it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from idealgroups.errors import IdealGroupsError
from idealgroups.theory.formulas import MIN_GROUP_ELEMENTS
from idealgroups.theory.strategies import Strategy

from ..common.first_rule import FirstBlock, FirstRule, Target, strategy_named

SOURCES = ("data", "pink", "noise")
"""What a plan is measured on: training images, 1/f noise or white noise."""

FIRST = ("isometric", "hybrid", "block")
"""Rules that had constants to change: behind ``@delta=``, ``@errors=`` and ``@elements=`` stands the first rule."""

TOLERANCE, ERRORS, ELEMENTS = "delta=", "errors=", "elements="


@dataclass(frozen=True)
class Variant:
    """``rule`` is a strategy, planned on ``source``."""

    rule: Strategy
    source: str = "data"


def parse(strategy: str) -> Variant:
    """Read ``rule``, ``rule@source``, ``rule@delta=NUMBER``, ``rule@errors=NUMBER`` or ``rule@elements=NUMBER``.

    ``delta``: δ for every network (``inf``: the cap alone); ``errors``: δ in standard errors of the trend;
    ``elements``: the least size of a group.

    Raises:
        IdealGroupsError: no such rule, or nothing that can be changed about it.

    >>> parse("isometric@noise").source
    'noise'
    >>> parse("hybrid@delta=1").rule.target.tolerance
    1.0
    """
    rule, at, changed = strategy.partition("@")
    named = strategy_named(rule)
    if not at:
        return Variant(named)
    if changed in SOURCES:
        return Variant(named, source=changed)
    if changed.startswith(TOLERANCE) and rule in FIRST[:2]:
        tolerance = _number(TOLERANCE, changed, strategy)
        return Variant(_first(rule, Target(tolerance, tolerance, trend_errors=0)))
    if changed.startswith(ERRORS) and rule in FIRST[:2]:
        return Variant(_first(rule, Target(trend_errors=_number(ERRORS, changed, strategy))))
    if changed.startswith(ELEMENTS) and rule in FIRST:
        elements = _number(ELEMENTS, changed, strategy)
        if elements < MIN_GROUP_ELEMENTS or not elements.is_integer():
            raise IdealGroupsError(f"{strategy!r} needs a whole number from {MIN_GROUP_ELEMENTS} on behind {ELEMENTS}.")
        return Variant(_first(rule, Target(min_elements=int(elements), min_flat_elements=int(elements))))
    raise IdealGroupsError(
        f"cannot plan {strategy!r}; write {', '.join(SOURCES)} or, for {' and '.join(FIRST[:2])}, "
        f"{TOLERANCE}NUMBER, {ERRORS}NUMBER or {ELEMENTS}NUMBER behind the @."
    )


def _first(rule: str, target: Target) -> Strategy:
    return FirstBlock(target) if rule == "block" else FirstRule(rule == "hybrid", target)


def base(strategy: str) -> str:
    """The strategy without what an ablation changes.

    >>> base("isometric@noise")
    'isometric'
    """
    return strategy.partition("@")[0]


def _number(key: str, changed: str, strategy: str) -> float:
    text = changed.removeprefix(key)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise IdealGroupsError(f"{strategy!r} needs a number behind {key}, {text!r} is none.")
    return value
