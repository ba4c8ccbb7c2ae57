"""The one loss of every task: squared error of floats, cross-entropy of classes."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor


def loss_of(outputs: Tensor, y: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Squared error against ``y`` of the outputs' shape where it is float, else cross-entropy of its classes."""
    if y.is_floating_point():
        return F.mse_loss(outputs, y, reduction=reduction)
    return F.cross_entropy(outputs, y, reduction=reduction)
