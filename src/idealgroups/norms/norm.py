"""A normalization layer over channels, described as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A normalization layer over (N, C, …): all that a GroupNorm in its place needs to know. Holds no tensor.

    ``kind``: name of its class. ``num_groups``: None unless it is a group or instance norm already. ``weight`` (γ) and
    ``bias`` (β): the names of its parameters or buffers, None where it has none; each holds ``num_channels`` values.
    ``after``: names of the child modules that are applied to the output (drop, activation).
    """

    kind: str
    num_channels: int
    eps: float
    num_groups: int | None
    weight: str | None
    bias: str | None
    after: tuple[str, ...] = ()

    @property
    def affine(self) -> bool:
        """Whether the layer scales or shifts."""
        return self.weight is not None or self.bias is not None

    def scale(self, module: nn.Module) -> Tensor | None:
        """γ of ``module`` as it is now, shape (C,)."""
        return None if self.weight is None else getattr(module, self.weight).reshape(-1)

    def shift(self, module: nn.Module) -> Tensor | None:
        """β of ``module`` as it is now, shape (C,)."""
        return None if self.bias is None else getattr(module, self.bias).reshape(-1)

    def finish(self, module: nn.Module, y: Tensor) -> Tensor:
        """Apply the drop and activation that ``module`` holds itself."""
        for name in self.after:
            y = getattr(module, name)(y)
        return y


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What one look at a model found, by name. A shared layer stands under its first name.

    ``norms``: the layers a plan can be made for. ``odd``: why other layers that normalize cannot be planned.
    ``tokens``: layer norms over the last dimension. ``skipped``: layers that were not to be looked at, and why.
    """

    norms: Mapping[str, Norm]
    odd: Mapping[str, str]
    tokens: frozenset[str] = frozenset()
    skipped: Mapping[str, str]

    @property
    def names(self) -> frozenset[str]:
        """Everything that normalizes, or may."""
        return frozenset({*self.norms, *self.odd, *self.tokens, *self.skipped})
