"""Strategies: small frozen dataclasses whose one method chooses the number of groups of every layer. No torch.

``Isometric``, ``Uniform`` and ``Block`` come from the theory (``docs/theory.md``). The others are baselines: what
people do today. ``Block`` and the baselines need shapes alone and never measure.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from ..errors import IdealGroupsError
from .block import block_groups
from .grouping import ideal_groups, largest_divisor, safe_groups
from .layer import Choice, Groups, Layer, M, Observe
from .solve import Budgets, Numbers, Sizes, Solution, solve


class Strategy(Protocol):
    """What turns layers into numbers of groups. ``closed``: from shapes alone, so ``observe`` is never called."""

    closed: ClassVar[bool]

    @property
    def name(self) -> str:
        """The name that :func:`parse_strategy` understands."""

    def choose(self, layers: Sequence[Layer], observe: Observe[M]) -> Choice[M]:
        """Choose the groups of every layer; ``observe`` measures what groups do."""


@dataclass(frozen=True)
class Isometric:
    """As many groups as keep T at or above min(0, T of one group) - ``slack``; one budget ε for all layers.

    ``slack``: default one, and zero where the optimizer is DP-SGD.
    """

    slack: float | None = None
    closed: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """``isometric``, and the slack where it is given."""
        return "isometric" if self.slack is None else f"isometric-{self.slack:g}"

    def choose(self, layers: Sequence[Layer], observe: Observe[M]) -> Choice[M]:
        """Search for the largest budget."""
        one = _one_group(layers, observe)
        curves = {layer.name: one.curves[layer.name] for layer in layers}
        family = Budgets.of(curves)
        solution = solve(observe, family, one, self.slack)
        budget = float(family.values[solution.index])
        groups = family.groups(solution.index)
        return Choice(
            groups=groups,
            ideals={name: ideal_groups(curve, budget) for name, curve in curves.items()},
            notes=_notes(layers, groups),
            budget=budget,
            lowest_trend=solution.lowest_trend,
            measured=solution.measured,
            one_number=_one_number(layers, one, solution),
        )


@dataclass(frozen=True)
class Uniform:
    """The same number for all layers, by the rule of :class:`Isometric`: ``num_groups``, or a ``group_size``.

    The number divides every width. Layers with one position, as behind fully connected ones, do not restrict it.
    """

    same: Literal["num_groups", "group_size"] = "num_groups"
    closed: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """``uniform`` or ``uniform-group-size``."""
        return "uniform" if self.same == "num_groups" else "uniform-group-size"

    def choose(self, layers: Sequence[Layer], observe: Observe[M]) -> Choice[M]:
        """Search for the most groups."""
        one = _one_group(layers, observe)
        family = Numbers.of(tuple(layers)) if self.same == "num_groups" else Sizes.of(tuple(layers))
        solution = solve(observe, family, one)
        groups = family.groups(solution.index)
        return Choice(
            groups=groups,
            ideals={name: float(number) for name, number in groups.items()},
            notes=_notes(layers, groups),
            lowest_trend=solution.lowest_trend,
            measured=solution.measured,
            one_number=_one_number(layers, one, solution),
        )


@dataclass(frozen=True)
class Block:
    """Each weight-GN-ReLU block isometric by itself, from shapes alone (:mod:`.block`)."""

    closed: ClassVar[bool] = True
    name: ClassVar[str] = "block"

    def choose(self, layers: Sequence[Layer], observe: Observe[M]) -> Choice[M]:
        """Invert the gain of every layer."""
        return Choice(*block_groups(layers))


class Baseline:
    """A number of groups that depends on the channels alone; the largest divisor up to it is taken."""

    closed: ClassVar[bool] = True

    def wanted(self, num_channels: int) -> float:
        """Return the number of groups wanted for ``num_channels``."""
        raise NotImplementedError

    def choose(self, layers: Sequence[Layer], observe: Observe[M]) -> Choice[M]:
        """Take the largest divisor up to the wanted number that leaves four elements in a group."""
        ideals = {layer.name: self.wanted(layer.num_channels) for layer in layers}
        chosen = {
            layer.name: safe_groups(
                layer.num_channels, layer.positions, largest_divisor(layer.num_channels, ideals[layer.name])
            )
            for layer in layers
        }
        return Choice(
            groups={name: groups for name, (groups, _) in chosen.items()},
            ideals=ideals,
            notes={name: note for name, (_, note) in chosen.items()},
        )


@dataclass(frozen=True)
class Fixed(Baseline):
    """The same number of groups in every layer, 32 by habit."""

    num_groups: int = 32

    @property
    def name(self) -> str:
        """``fixed-32``."""
        return f"fixed-{self.num_groups}"

    def wanted(self, num_channels: int) -> float:
        """Return ``num_groups``."""
        return self.num_groups


@dataclass(frozen=True)
class Gcd(Baseline):
    """The greatest common divisor of ``num_groups`` and the channels, as in Opacus."""

    num_groups: int = 32

    @property
    def name(self) -> str:
        """``gcd-32``."""
        return f"gcd-{self.num_groups}"

    def wanted(self, num_channels: int) -> float:
        """Return the greatest common divisor."""
        return math.gcd(self.num_groups, num_channels)


@dataclass(frozen=True)
class GroupSize(Baseline):
    """The same number of channels in every group, 16 by habit."""

    group_size: int = 16

    @property
    def name(self) -> str:
        """``group-size-16``."""
        return f"group-size-{self.group_size}"

    def wanted(self, num_channels: int) -> float:
        """Return the channels over ``group_size``."""
        return num_channels / self.group_size


@dataclass(frozen=True)
class Quarter(Baseline):
    """A quarter of the channels, at most ``num_groups``, a convention of diffusers' decoders."""

    num_groups: int = 32

    @property
    def name(self) -> str:
        """``min-32-quarter``."""
        return f"min-{self.num_groups}-quarter"

    def wanted(self, num_channels: int) -> float:
        """Return a quarter of the channels, at most ``num_groups``."""
        return min(self.num_groups, num_channels // 4)


@dataclass(frozen=True)
class Sqrt(Baseline):
    """The square root of the channels."""

    name: ClassVar[str] = "sqrt"

    def wanted(self, num_channels: int) -> float:
        """Return the square root."""
        return math.sqrt(num_channels)


@dataclass(frozen=True)
class OneGroup(Baseline):
    """One group: layer norm over channels and positions."""

    name: ClassVar[str] = "layer"

    def wanted(self, num_channels: int) -> float:
        """Return 1."""
        return 1


@dataclass(frozen=True)
class Instance(Baseline):
    """One channel per group: instance norm."""

    name: ClassVar[str] = "instance"

    def wanted(self, num_channels: int) -> float:
        """Return the channels."""
        return num_channels


BASELINES: tuple[str, ...] = ("fixed-32", "gcd-32", "group-size-16", "min-32-quarter", "sqrt", "layer", "instance")
"""Names of what people do today."""

STRATEGIES: tuple[str, ...] = ("isometric", "uniform", "uniform-group-size", "block", *BASELINES)
"""Every named strategy. ``fixed-N``, ``gcd-N``, ``group-size-N`` and ``min-N-quarter`` are understood for any N."""

_NAMED: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (Isometric(), Uniform(), Uniform("group_size"), Block(), Sqrt(), OneGroup(), Instance())
}
_NUMBERED: tuple[tuple[re.Pattern[str], Callable[[int], Strategy]], ...] = (
    (re.compile(r"fixed-([1-9]\d*)"), Fixed),
    (re.compile(r"gcd-([1-9]\d*)"), Gcd),
    (re.compile(r"group-size-([1-9]\d*)"), GroupSize),
    (re.compile(r"min-([1-9]\d*)-quarter"), Quarter),
)


def parse_strategy(strategy: str | Strategy) -> Strategy:
    """Return the strategy of a name; a strategy is returned as it is.

    Raises:
        IdealGroupsError: no strategy has that name; the nearest one is named.

    >>> parse_strategy("group-size-8")
    GroupSize(group_size=8)
    """
    if not isinstance(strategy, str):
        if callable(getattr(strategy, "choose", None)) and not isinstance(strategy, type):
            return strategy
        raise IdealGroupsError(f"{strategy!r} is no strategy; give a name such as 'isometric', or ig.Isometric().")
    if (named := _named(strategy)) is not None:
        return named
    if strategy == "faithful":
        raise IdealGroupsError(
            "strategy 'faithful' chooses groups while it calibrates a trained network; use convert, not plan."
        )
    near = difflib.get_close_matches(strategy, STRATEGIES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(STRATEGIES)}."
    raise IdealGroupsError(f"there is no strategy {strategy!r}; {hint}")


def _named(name: str) -> Strategy | None:
    if name in _NAMED:
        return _NAMED[name]
    found = ((pattern.fullmatch(name), family) for pattern, family in _NUMBERED)
    return next((family(int(match[1])) for match, family in found if match), None)


def same_for_every_optimizer(name: str) -> bool:
    """Whether a strategy gives the same groups whatever trains the network; False for one that is not known here.

    Args:
        name: of a strategy, ``faithful`` included.

    >>> same_for_every_optimizer("fixed-32"), same_for_every_optimizer("isometric")
    (True, False)
    """
    return name == "faithful" or (_named(name) or Isometric()).closed


def _one_group(layers: Sequence[Layer], observe: Observe[M]) -> M:
    return observe({layer.name: 1 for layer in layers}, True)


def _notes(layers: Sequence[Layer], groups: Groups) -> dict[str, str]:
    return {layer.name: safe_groups(layer.num_channels, layer.positions, groups[layer.name])[1] for layer in layers}


def _one_number(layers: Sequence[Layer], one: M, solution: Solution[M]) -> int:
    """Return the largest number of groups for all layers whose predicted trend is not below the limit."""
    numbers = Numbers.of(tuple(layers))
    falls = numbers.falls(one.curves)
    kept = [i for i, fall in enumerate(falls) if solution.expected_trend(fall) >= solution.lowest_trend]
    return numbers.values[max(kept, default=0)]
