"""The records that one pass returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..theory.curves import Curves
from ..theory.formulas import Floats
from ..theory.layer import WeightShape
from ..theory.line import spread, trend, trend_error

Optimizer = Literal["sgd", "dp-sgd", "adam"]
"""What makes the steps: the line is log u, for DP-SGD log v. Adam's steps are as large whatever the gradient is."""


@dataclass(frozen=True)
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

    @property
    def per_element(self) -> float:
        """v = ‖∂L/∂W‖_F / √numel."""
        return self.relative * self.norm / math.sqrt(self.numel)


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

    @property
    def line(self) -> Floats:
        """Log u (for DP-SGD log v) of the layers that groups can move, in execution order, shape (L,)."""
        layers = [layer for layer in self.gradients if layer.in_line]
        sizes = [layer.per_element if self.optimizer == "dp-sgd" else layer.relative for layer in layers]
        line: Floats = np.log(np.array(sizes))
        return line

    @property
    def trend(self) -> float:
        """T: last minus first of the robust line; negative where early layers have the larger gradients."""
        return trend(self.line)

    @property
    def trend_error(self) -> float:
        """Standard error of T."""
        return trend_error(self.line)

    @property
    def spread(self) -> float:
        """Standard deviation over the layers of the line."""
        return spread(self.line)


@dataclass(frozen=True)
class Survey:
    """What the first pass found out about the normalization layers, by name.

    ``positions``: of the smallest call of each layer that ran. ``flat``: layers whose every call had one position.
    ``weights``: the shapes of the weight layer that a norm belongs to. ``functional``: functions that
    normalize, by the module that calls them. ``silent_norms``: layers that did not run. ``odd``: layers that are called
    in a way that no group norm can be called, and why.
    """

    positions: Mapping[str, int]
    flat: frozenset[str]
    weights: Mapping[str, WeightShape]
    functional: Mapping[str, str]
    silent_norms: tuple[str, ...]
    odd: Mapping[str, str]
