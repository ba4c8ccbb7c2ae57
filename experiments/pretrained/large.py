"""What converting ResNet-50 with 256 images of 224 px takes, against a training step with 16 of them.

Random weights whose running statistics one pass has set: what is computed is the same. Peak memory is that of a
process of its own, above what it held before the network was built; needs Linux.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

import idealgroups as ig
from experiments.memory import status
from idealgroups.synthetic import synthetic

IMAGES, BATCH, SIZE = 256, 16, 224
WAYS = ("training step", "convert, one tensor", "convert, batches of 16")


def measured(way: str) -> dict[str, Any]:
    """Seconds, processor seconds and mebibytes."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (way,))


def _measured(way: str) -> dict[str, Any]:
    torch.set_num_threads(os.cpu_count() or 1)
    _step(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), synthetic((2, 3, 8, 8)))  # what torch loads when used
    before = status("VmRSS")
    model, images = resnet50(), synthetic((BATCH if way == "training step" else IMAGES, 3, SIZE, SIZE))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        model(images[:BATCH])
    model.eval()
    started, processor = time.monotonic(), time.process_time()
    if way == "training step":
        _step(model.train(), images)
    elif way == "convert, one tensor":
        ig.convert(model, images, progress=False)
    else:
        batches = [images[start : start + BATCH] for start in range(0, IMAGES, BATCH)]
        ig.convert(model, images[:BATCH], calibrate=batches, progress=False)
    return {
        "wall_seconds": round(time.monotonic() - started, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "mebibytes": round((status("VmHWM") - before) / 2**20),
        "load": round(os.getloadavg()[0], 1),
    }


def _step(model: nn.Module, x: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()
