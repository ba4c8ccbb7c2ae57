"""All torchvision builders of classification, segmentation, detection, video and optical flow."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from idealgroups.synthetic import synthetic

from . import Case

PX = {"inception_v3": 299, "maxvit_t": 224, "vit": 224, "swin": 96}
CLASSES = 10


def cases() -> Iterator[Case]:
    parts = {
        "classification": (models, _classification),
        "segmentation": (models.segmentation, _segmentation),
        "detection": (models.detection, _detection),
        "video": (models.video, _video),
        "optical flow": (models.optical_flow, _flow),
    }
    for task, (module, build) in parts.items():
        for name in models.list_models(module):
            yield Case("torchvision", name, task, partial(build, name))


def _classification(name: str) -> tuple[nn.Module, Tensor]:
    model = models.get_model(name, weights=None, num_classes=CLASSES, **_quiet(name))
    px = next((size for prefix, size in PX.items() if name.startswith(prefix)), 96)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    if px == 96 and millions > 60:
        px = 64
    return model, synthetic((4 if millions < 12 and px <= 96 else 2, 3, px, px))


def _quiet(name: str) -> dict[str, Any]:
    return {"init_weights": True} if name in ("googlenet", "inception_v3") else {}


def _segmentation(name: str) -> tuple[nn.Module, Tensor]:
    model = models.get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES)
    return model, synthetic((2, 3, 96, 96))


def _detection(name: str) -> tuple[nn.Module, tuple[list[Tensor], list[dict[str, Tensor]]]]:
    px = 300 if name == "ssd300_vgg16" else 320 if name.startswith("ssdlite") else 128
    sizes = {} if name.startswith("ssd") else {"min_size": px, "max_size": px}
    if "rcnn" in name:
        sizes["box_batch_size_per_image"] = 32
    model = models.get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES, **sizes)
    images = list(synthetic((2, 3, px, px)))
    box = torch.tensor([[8.0, 8.0, 70.0, 60.0], [40.0, 50.0, 110.0, 120.0]])
    target = {"boxes": box, "labels": torch.tensor([1, 3])}
    if name.startswith("mask"):
        target["masks"] = torch.ones(2, px, px, dtype=torch.uint8)
    if name.startswith("keypoint"):
        points = torch.stack([torch.linspace(42, 68, 17), torch.linspace(52, 58, 17), torch.ones(17)], 1)
        target["keypoints"] = points.expand(2, 17, 3).clone()
        target["labels"] = torch.ones(2, dtype=torch.long)
    return model, (images, [target, target])


def _video(name: str) -> tuple[nn.Module, Tensor]:
    model = models.get_model(name, weights=None, num_classes=CLASSES)
    if name.startswith("mvit"):
        return model, synthetic((1, 3, 16, 224, 224))
    return model, synthetic((1, 3, 14, 224, 224) if name == "s3d" else (2, 3, 8, 48, 48))


def _flow(name: str) -> tuple[nn.Module, dict[str, Any]]:
    first, second = torch.split(synthetic((4, 3, 128, 128)), 2)
    return models.get_model(name, weights=None), {"image1": first, "image2": second, "num_flow_updates": 3}
