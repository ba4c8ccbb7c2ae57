"""The records that one pass returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..theory.curves import Curves
from ..theory.formulas import Floats, spread, trend, trend_error


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
    """

    curves: Mapping[str, Curves]
    gradients: tuple[WeightGradient, ...]
    silent: tuple[str, ...]

    @property
    def log_u(self) -> Floats:
        """log u of the layers in ``gradients``, shape (L,)."""
        log_u: Floats = np.log(np.array([layer.relative for layer in self.gradients]))
        return log_u

    @property
    def trend(self) -> float:
        """T: last minus first of the least-squares line of log u; negative where early layers have the larger u."""
        return trend(self.log_u)

    @property
    def trend_error(self) -> float:
        """Standard error of T."""
        return trend_error(self.log_u)

    @property
    def spread(self) -> float:
        """Standard deviation of log u over layers."""
        return spread(self.log_u)


@dataclass(frozen=True)
class Survey:
    """What the first pass found out about the normalization layers, by name.

    ``positions``: of the smallest call of each layer that ran. ``flat``: layers whose every call had one position.
    ``ratios``: elements in / elements out of the weight layer that a norm belongs to. ``functional``: functions that
    normalize, by the module that calls them. ``silent_norms``: layers that did not run. ``odd``: layers that are called
    in a way that no group norm can be called, and why.
    """

    positions: Mapping[str, int]
    flat: frozenset[str]
    ratios: Mapping[str, float]
    functional: Mapping[str, str]
    silent_norms: tuple[str, ...]
    odd: Mapping[str, str]
