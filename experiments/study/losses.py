"""The one loss of every task: squared error of floats, cross-entropy of classes, and a detector's loss of boxes."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from .detector import detection_loss


def loss_of(outputs: Tensor, y: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Squared error against ``y`` of the outputs' shape where it is float, else cross-entropy of its classes.

    Against boxes: the loss of ``detector.py``.
    """
    if are_boxes(y):
        return detection_loss(outputs, y, reduction)
    if y.is_floating_point():
        return F.mse_loss(outputs, y, reduction=reduction)
    return F.cross_entropy(outputs, y, reduction=reduction)


def are_boxes(y: Tensor) -> bool:
    """Whether targets are boxes: floats (N, K, 4), where classes are integers and noise is (N, C, H, W)."""
    return y.is_floating_point() and y.dim() == 3


def count_of(y: Tensor) -> int:
    """What a sum of losses is divided by: tiles with boxes, else labels or values."""
    return len(y) if are_boxes(y) else y.numel()
