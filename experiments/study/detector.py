"""A small one-class detector without anchors, FCOS (Tian et al. 2019) on one map, from torchvision's parts; its loss.

For tiles (N, 3, H, H) it returns (N, P, 6): P = (H / 8)² positions, row by row; for each a logit, the logit of the
centerness, and in strides how far the box extends from the position to the left, the top, the right and the bottom.
Nothing in the loss depends on the number of boxes but its values, so a step can be recorded on a GPU.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idealgroups.errors import IdealGroupsError

STRIDE = 8
"""Pixels from one position to the next."""

RADIUS = 1.5
"""Strides from the centre of a box within which positions belong to it, as torchvision has it."""

FIRST_DISTANCE = 2.0
"""Strides from a position to each side of its box before training. The distances go through a ReLU: started from 0, as
torchvision starts them, half of them have no gradient, and one step that is too long takes it from all."""

HEAD_CONVOLUTIONS = 2
"""In front of each of the two outputs; torchvision has four."""

LEAST_SCORE, MOST_OVERLAP, MOST_BOXES = 0.05, 0.4, 100
"""Boxes that are kept: their score, their IoU with a better one, and how many of a tile."""


class SmallFCOS(nn.Module):
    """torchvision's ResNet-18 up to its second stage (stride 8, 128 channels) and its FCOS heads, with batch norm."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        if in_channels != 3:
            raise IdealGroupsError("fcos finds boxes on tiles of three channels; use it with NAME-boxes.")
        vision = _torchvision()
        resnet = vision.models.resnet18(weights=None)
        self.backbone = nn.Sequential(OrderedDict(list(resnet.named_children())[:6]))
        width = resnet.layer3[0].conv1.in_channels
        heads = vision.models.detection.fcos
        options = {"num_convs": HEAD_CONVOLUTIONS, "norm_layer": nn.BatchNorm2d}
        self.classification = heads.FCOSClassificationHead(width, 1, 1, **options)
        self.regression = heads.FCOSRegressionHead(width, 1, **options)
        nn.init.constant_(self.regression.bbox_reg.bias, FIRST_DISTANCE)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, H) → (N, P, 6); H is divisible by 8."""
        maps = [self.backbone(x)]
        distances, centerness = self.regression(maps)
        return torch.cat([self.classification(maps), centerness, distances], 2)


def positions(outputs: Tensor) -> Tensor:
    """The pixels (P, 2), x and y, in the middle of the cells that outputs (N, P, 6) are for.

    >>> positions(torch.zeros(1, 4, 6)).tolist()
    [[4.0, 4.0], [12.0, 4.0], [4.0, 12.0], [12.0, 12.0]]
    """
    side = math.isqrt(outputs.shape[1])
    middle = (torch.arange(side, device=outputs.device, dtype=outputs.dtype) + 0.5) * STRIDE
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


def match(where: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each position belongs to a box (N, P), and its distances to that box's sides in pixels (N, P, 4).

    A position belongs to the smallest of the boxes that it lies in and whose centre is near. Where there is none, the
    distances are those to the sides of a cell.

    Args:
        where: (P, 2).
        boxes: (N, K, 4); those without area hold no position.
    """
    where = where[:, None]
    distances = torch.cat([where - boxes[:, None, :, :2], boxes[:, None, :, 2:] - where], -1)
    near = (distances[..., :2] - distances[..., 2:]).abs().amax(-1) < 2 * RADIUS * STRIDE
    inside = distances.amin(-1) > 0
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)[:, None].expand_as(inside)
    smallest, index = area.masked_fill(~(inside & near), math.inf).min(-1)
    belongs = smallest < math.inf
    own = distances.gather(2, index[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
    return belongs, own.masked_fill(~belongs[..., None], STRIDE / 2)


def detection_loss(outputs: Tensor, boxes: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """FCOS's loss of outputs (N, P, 6) against boxes (N, K, 4), the mean or the sum over tiles.

    For each tile: the focal loss of all positions, and of those that belong to a box the generalised IoU loss and the
    cross-entropy of the centerness; all divided by their number, or by 1 where there is none.
    """
    belongs, wanted = match(positions(outputs), boxes)
    labels = belongs.to(outputs.dtype)
    focal = _torchvision().ops.sigmoid_focal_loss(outputs[..., 0], labels)
    center = F.binary_cross_entropy_with_logits(outputs[..., 1], centerness_of(wanted), reduction="none")
    shape = giou_loss(outputs[..., 2:] * STRIDE, wanted)
    total: Tensor = (focal + (shape + center).masked_fill(~belongs, 0)).sum(1) / labels.sum(1).clamp_min(1)
    return total.mean() if reduction == "mean" else total.sum()


def centerness_of(distances: Tensor) -> Tensor:
    """How near the middle of its box a position is (Tian et al., equation 3): (..., 4) → (...), 1 in the middle."""
    pairs = torch.stack([distances[..., 0::2], distances[..., 1::2]], -2)
    return (pairs.amin(-1) / pairs.amax(-1)).prod(-1).sqrt()


def giou_loss(one: Tensor, other: Tensor) -> Tensor:
    """1 - the generalised IoU of boxes (..., 4) around the same position, both given by the distances to their sides.

    torchvision's function picks the boxes that overlap, which a recorded step cannot do; around a position all do.
    """

    def area(sides: Tensor) -> Tensor:
        return (sides[..., 0] + sides[..., 2]) * (sides[..., 1] + sides[..., 3])

    common, hull = area(torch.minimum(one, other)), area(torch.maximum(one, other))
    union = area(one) + area(other) - common
    return 1 - common / union + (hull - union) / hull


@torch.no_grad()
def find_boxes(outputs: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Scores (D,), the best first, and boxes (D, 4) for each tile of outputs (N, P, 6).

    The score is the geometric mean of the probabilities of an object and of the centerness.
    """
    ops, where = _torchvision().ops, positions(outputs)
    scores = outputs[..., :2].sigmoid().prod(-1).sqrt()
    boxes = torch.cat([where - outputs[..., 2:4] * STRIDE, where + outputs[..., 4:] * STRIDE], -1)
    boxes = boxes.clamp(0, math.isqrt(outputs.shape[1]) * STRIDE)
    found = []
    for score, box in zip(scores, boxes, strict=True):
        likely = score > LEAST_SCORE
        score, box = score[likely], box[likely]
        kept = ops.nms(box, score, MOST_OVERLAP)[:MOST_BOXES]
        found.append((score[kept], box[kept]))
    return found


def _torchvision() -> Any:
    try:
        import torchvision
    except ImportError:
        raise IdealGroupsError("the detector needs torchvision; install idealgroups[zoo].") from None
    return torchvision
