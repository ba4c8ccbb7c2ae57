"""The rows of results: one normalization layer, one thing that was not understood, one weight layer. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from .checking import check_types
from .errors import IdealGroupsError
from .theory.formulas import Floats
from .theory.line import spread, trend, trend_error


@dataclass(frozen=True, kw_only=True)
class Site:
    """One normalization layer and its number of groups.

    ``positions``: S of the smallest call. ``groups_before``: None if the layer was no group norm (batch norm, say).
    ``ideal``: the real-valued number of groups before rounding to a divisor of ``num_channels``. ``gain``: the grouping
    gain b at the choice, against one group. ``eps``: of the group norm; None for the layer's own. ``residual``:
    after calibration, the squared error against the trained layer's output, as a share of that output's variance.

    Raises:
        IdealGroupsError: ``num_groups`` does not divide ``num_channels``, or a number is not positive.
    """

    name: str
    kind: str
    num_channels: int
    positions: int
    groups_before: int | None = None
    ideal: float
    num_groups: int
    gain: float
    note: str = ""
    eps: float | None = None
    residual: float | None = None

    def __post_init__(self) -> None:
        check_types(self)
        if min(self.num_groups, self.num_channels) < 1 or self.num_channels % self.num_groups:
            raise IdealGroupsError(
                f"the plan gives {self.name or 'the model'} {self.num_groups} groups, which do not divide its "
                f"{self.num_channels} channels; choose a divisor."
            )

    def __eq__(self, other: object) -> bool:
        """Compare as tuples of all fields, so that a gain that was not measured (``math.nan``) equals itself.

        Python 3.13 compares the fields of a dataclass one by one, without their identity.
        """
        if not isinstance(other, Site):
            return NotImplemented
        return tuple(vars(self).values()) == tuple(vars(other).values())

    @property
    def group_size(self) -> int:
        """c = C / G, the channels of a group."""
        return self.num_channels // self.num_groups

    @property
    def group_elements(self) -> int:
        """m = c·S, the elements that one group normalizes at the planned input size."""
        return self.group_size * self.positions


@dataclass(frozen=True, kw_only=True)
class NotUnderstood:
    """Something that normalizes, or should, and could not be planned; ``why`` is a sentence."""

    name: str
    why: str

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class WeightGradient:
    """The gradient of a weight layer; ``relative`` is u = ‖∂L/∂W‖_F / ‖W‖_F.

    ``norm``: ‖W‖_F. ``numel``: the number of elements of W. ``in_line``: whether the output of a planned normalization
    lies between the layer and the loss, so that its number of groups can change u.
    """

    name: str
    relative: float
    norm: float = 1.0
    numel: int = 1
    in_line: bool = True

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def per_element(self) -> float:
        """v = ‖∂L/∂W‖_F / √numel."""
        return self.relative * self.norm / math.sqrt(self.numel)


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """The gradients of one pass. ``layers``: the weight layers that a gradient reached, in execution order.

    ``silent``: the names of the other weight layers. ``optimizer``: whose steps the line is about: log u, for
    ``dp-sgd`` log v.
    """

    layers: tuple[WeightGradient, ...]
    silent: tuple[str, ...] = ()
    optimizer: str = "sgd"

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def line(self) -> Floats:
        """Log u (for DP-SGD log v) of the layers that groups can move, shape (L,)."""
        layers = [layer for layer in self.layers if layer.in_line]
        sizes = [layer.per_element if self.optimizer == "dp-sgd" else layer.relative for layer in layers]
        with np.errstate(divide="ignore"):  # a gradient of zero: the trend is then not a number, or not moved by it
            line: Floats = np.log(np.array(sizes))
        return line

    @property
    def trend(self) -> float:
        """T: last minus first value of the line; 0 is isometric, negative: early layers have the larger gradients."""
        with np.errstate(invalid="ignore"):
            return trend(self.line)

    @property
    def trend_error(self) -> float:
        """Standard error of :attr:`trend`."""
        with np.errstate(invalid="ignore"):
            return trend_error(self.line)

    @property
    def spread(self) -> float:
        """Standard deviation over the layers of the line."""
        with np.errstate(invalid="ignore"):
            return spread(self.line)


@runtime_checkable
class Planned(Protocol):
    """What a conversion needs to know of a plan."""

    @property
    def sites(self) -> Sequence[Site]:
        """The layers and their numbers of groups."""

    @property
    def not_understood(self) -> Sequence[NotUnderstood]:
        """What could not be planned."""

    @property
    def num_groups(self) -> Mapping[str, int]:
        """{layer name: number of groups}."""

    @property
    def fingerprint(self) -> str:
        """The network that the plan is for, by :func:`.fingerprint.fingerprint`."""
