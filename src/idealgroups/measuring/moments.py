"""Per-channel sums of a normalization layer's input and of the gradient at its output."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..theory.curves import Curves, Moments, curves_of_layers

CANCELLATION = 1e-2
"""Below this share of the second moment a variance is computed the slow, stable way."""


@dataclass(slots=True)
class Call:
    """One call of a layer: ``mean`` and ``var`` of its input per sample and channel, each of shape (N, C).

    ``gradients`` holds a triple of sums for each backward pass through the call: Σ d, Σ d² and Σ d·z over positions, d
    being the gradient at the normalized signal and z the input.
    """

    mean: Tensor
    var: Tensor
    positions: int
    eps: float
    gradients: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def moments(self) -> list[Moments]:
        """Return the sums as NumPy arrays: one record for each backward pass, or one without gradients."""
        mean, var = _double(self.mean), _double(self.var)
        if not self.gradients:
            return [Moments(mean, var, self.positions, self.eps)]
        return [Moments(mean, var, self.positions, self.eps, *map(_double, sums)) for sums in self.gradients]


@torch.no_grad()
def forward_moments(x: Tensor, eps: float) -> Call:
    """Return mean and variance over the positions of ``x``, which has shape (N, C, …)."""
    flat = _positions_last(x)
    mean = flat.mean(-1)
    square = torch.linalg.vector_norm(flat, dim=-1) ** 2 / flat.shape[-1]
    var = square - mean**2
    # Seven times as fast as a stable variance, and as good unless the mean is far larger than the deviation.
    if bool((var < CANCELLATION * square).any()):
        var = torch.var(flat, dim=-1, correction=0)
    return Call(mean, var, flat.shape[-1], eps)


@torch.no_grad()
def gradient_sums(gradient: Tensor, x: Tensor, gamma: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return Σ d, Σ d² and Σ d·z over positions, with d = ``gamma`` times the gradient at the layer's output."""
    d, z = _positions_last(gradient), _positions_last(x)
    scale = torch.ones(x.shape[1], dtype=d.dtype, device=d.device) if gamma is None else gamma.to(d.dtype)
    square = torch.linalg.vector_norm(d, dim=-1) ** 2
    return d.sum(-1) * scale, square * scale**2, torch.linalg.vecdot(d, z) * scale


def curves_of_calls(calls: dict[str, list[Call]]) -> dict[str, Curves]:
    """Return the gain of every number of groups, of every layer, from all its calls."""
    return curves_of_layers({name: [one for call in some for one in call.moments()] for name, some in calls.items()})


def _positions_last(x: Tensor) -> Tensor:
    """(N, C, …) → (N, C, S), in single precision at least."""
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return x.flatten(2) if x.ndim > 2 else x.unsqueeze(-1)


def _double(x: Tensor):  # type: ignore[no-untyped-def]
    return x.double().cpu().numpy()
