"""Compares what a layer did in the model with what it was taken for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .behavior import applied
from .norm import Norm
from .recognise import is_trusted
from .textbook import textbook

TOLERANCE = 2e-2
"""Of the largest output: ε may be added elsewhere."""


@torch.no_grad()
def disagreement(module: nn.Module, norm: Norm, x: Tensor, y: object) -> str | None:
    """Return a sentence where ``module`` made of ``x`` another ``y`` than ``norm`` does, which it was taken for.

    A layer is tried on shapes of our own; on those of the model it may do something else. Torch's own layers are
    believed, and so is what runs on statistics of its own or in half precision.

    >>> layer = nn.GroupNorm(2, 4)
    >>> norm = Norm(kind="GroupNorm", num_channels=4, eps=1e-5, num_groups=2, weight="weight", bias="bias")
    >>> disagreement(layer, norm, x := torch.randn(2, 4, 3), layer(x)) is None
    True
    """
    if is_trusted(module) or x.dtype not in (torch.float32, torch.float64):
        return None
    if isinstance(y, Tensor) and y.shape == x.shape:
        is_batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        has_statistics = "running_mean" in module._buffers and is_batch_norm == norm.over_batch
        has_class = isinstance(module, nn.GroupNorm) or has_statistics
        if norm.over_batch and not has_class and not module.training:
            return None
        if has_class:
            expected = iter([norm.finish(module, textbook(module, norm, x, training=module.training))])
        else:
            expected = applied(module, norm, x)
        if any(_is_close(y, z) for z in expected):
            return None
    return f"does on an input of shape {tuple(x.shape)} something else than normalize, scale and shift its channels"


def _is_close(y: Tensor, z: Tensor) -> bool:
    """Whether they differ by little; one channel of one sample nearly always has values enough to tell."""
    off = _largest(y - z)
    return off <= TOLERANCE * _largest(z[:1, :1]) or off <= TOLERANCE * _largest(z)


def _largest(x: Tensor) -> float:
    """Return the largest absolute value, in one look and with no second tensor."""
    low, high = torch.aminmax(x)
    return max(-float(low), float(high))
