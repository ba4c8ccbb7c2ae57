"""The records that one pass returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from ..errors import IdealGroupsError
from ..records import Gradients, WeightGradient
from ..theory.curves import Curves
from ..theory.layer import WeightShape
from ..theory.solve import PRIVATE_SLACK, SLACK

Optimizer = Literal["sgd", "dp-sgd", "adam"]
"""What makes the steps: the line is log u, for DP-SGD log v. Adam's steps are as large whatever the gradient is."""


def check_optimizer(optimizer: Any) -> None:
    """Raise where ``optimizer`` is none of the words.

    Raises:
        IdealGroupsError: it is none.
    """
    choices = get_args(Optimizer)
    if not isinstance(optimizer, str) or optimizer not in choices:
        given = repr(optimizer) if isinstance(optimizer, str) else f"of class {type(optimizer).__name__}"
        raise IdealGroupsError(f"there is no optimizer {given}; choose one of the words {', '.join(choices)}.")


@dataclass(frozen=True)
class Observation:
    """What one pass measured. ``gradients``: the weight layers that a gradient reached, in execution order.

    ``silent``: the names of the other weight layers. ``curves``: of the regrouped layers, empty if not asked for.
    ``optimizer``: whose steps the line is about.
    """

    curves: Mapping[str, Curves]
    gradients: tuple[WeightGradient, ...]
    silent: tuple[str, ...]
    optimizer: Optimizer = "sgd"

    @cached_property
    def measured(self) -> Gradients:
        """The gradients as a plan keeps them."""
        return Gradients(layers=self.gradients, silent=self.silent, optimizer=self.optimizer)

    @cached_property
    def trend(self) -> float:
        """T: last minus first of the robust line; negative where early layers have the larger gradients."""
        return self.measured.trend

    @property
    def slack(self) -> float:
        """How far T may fall with this optimizer."""
        return PRIVATE_SLACK if self.optimizer == "dp-sgd" else SLACK

    @property
    def trend_error(self) -> float:
        """Standard error of T."""
        return self.measured.trend_error

    @property
    def spread(self) -> float:
        """Standard deviation over the layers of the line."""
        return self.measured.spread


@dataclass(frozen=True)
class Structure:
    """What the first pass found out about the normalization layers, by name.

    ``positions``: of the smallest call of each layer that ran. ``samples``: N of its (N, C, …). ``flat``: layers whose
    every call had one position.
    ``weights``: the shapes of the weight layer that a norm belongs to. ``functional``: functions that
    normalize, by the module that calls them. ``silent_norms``: layers that did not run. ``odd``: layers that are called
    in a way that no group norm can be called, and why. ``output``: the shape of the model's output.
    """

    positions: Mapping[str, int]
    flat: frozenset[str]
    weights: Mapping[str, WeightShape]
    functional: Mapping[str, str]
    silent_norms: tuple[str, ...]
    odd: Mapping[str, str]
    output: str
    samples: Mapping[str, int] = field(default_factory=dict)
