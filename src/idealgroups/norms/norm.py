"""A normalization layer over channels, described as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

ACTIVATIONS = ("ReLU", "SiLU", "GELU", "LeakyReLU", "ELU", "Sigmoid", "Tanh")
"""Activations that people write into the forward of a normalization layer, with torch's default settings."""


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A normalization layer over (N, C, …): all that a GroupNorm in its place needs to know. Holds no tensor.

    ``kind``: name of its class. ``num_groups``: None unless it is a group or instance norm already. ``weight`` (γ) and
    ``bias`` (β): the names of its parameters or buffers, None where it has none. Each of their values stands for
    ``repeats`` neighbouring channels. ``after``: names of the child modules that are applied to the output (drop,
    activation). ``activation``: the class of torch.nn that its forward applies last, where that is no child.
    ``over_batch``: whether it normalizes over the samples of a batch.
    """

    kind: str
    num_channels: int
    eps: float
    num_groups: int | None
    weight: str | None
    bias: str | None
    after: tuple[str, ...] = ()
    repeats: int = 1
    activation: str | None = None
    over_batch: bool = False

    @property
    def affine(self) -> bool:
        """Whether the layer scales or shifts."""
        return self.weight is not None or self.bias is not None

    def scale(self, module: nn.Module) -> Tensor | None:
        """γ of ``module`` as it is now, shape (C,)."""
        return None if self.weight is None else self._values(module, self.weight)

    def shift(self, module: nn.Module) -> Tensor | None:
        """β of ``module`` as it is now, shape (C,)."""
        return None if self.bias is None else self._values(module, self.bias)

    def _values(self, module: nn.Module, name: str) -> Tensor:
        values: Tensor = getattr(module, name)
        values = values if values.ndim == 1 else values.reshape(-1)
        return values if self.repeats == 1 else values.repeat_interleave(self.repeats)

    def finish(self, module: nn.Module, y: Tensor) -> Tensor:
        """Apply the drop and activation that belong to ``module``."""
        for name in self.after:
            y = getattr(module, name)(y)
        return y if self.activation is None else getattr(nn, self.activation)()(y)


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
