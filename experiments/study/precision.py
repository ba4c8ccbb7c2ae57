"""Average precision of boxes that were found, as COCO defines it, for one class and one overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

RECALLS = np.linspace(0, 1, 101)
"""Where the precision is read."""


def average_precision(found: Sequence[tuple[Tensor, Tensor]], boxes: Tensor, overlap: float) -> float:
    """The mean, over 101 recalls, of the best precision at that recall or a higher one; 0 where no box is found.

    From the best score down, what was found takes the box of its tile that it overlaps most, of those not yet taken;
    it is right if their IoU is at least ``overlap``.

    Args:
        found: scores (D,), the best first, and boxes (D, 4) for each tile.
        boxes: the true ones (N, K, 4); those without area do not count.
        overlap: the least IoU.
    """
    from torchvision.ops import box_iou

    boxes = boxes.cpu()
    real = (boxes[..., 2:] > boxes[..., :2]).all(-1)
    tiles = zip(found, boxes, real, strict=True)
    right = [_right(box_iou(box.cpu(), own[counted]).numpy(), overlap) for (_, box), own, counted in tiles]
    order = np.argsort(-np.concatenate([score.cpu().numpy() for score, _ in found]), kind="stable")
    hits = np.concatenate(right)[order]
    recall = np.cumsum(hits) / max(1, int(real.sum()))
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    best_after = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    return float(best_after[np.searchsorted(recall, RECALLS)].mean())


def _right(ious: NDArray[Any], overlap: float) -> NDArray[np.bool_]:
    """Which of the boxes found on a tile (D, K) are right."""
    free, right = ious.copy(), np.zeros(len(ious), bool)
    for row in range(len(free) if free.shape[1] else 0):
        best = free[row].argmax()
        right[row] = free[row, best] >= overlap
        if right[row]:
            free[:, best] = -1
    return right
