"""Up to five small networks of every timm family (module) that has a supported norm; listed in ``timm_models.txt``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from idealgroups.norms import inventory
from idealgroups.synthetic import synthetic

from . import Case

LIST = Path(__file__).with_name("timm_models.txt")
PER_FAMILY = 5
LARGE = 40e6
"""Beyond the first of its family a network has fewer parameters than this."""

PX = 96


def cases() -> Iterator[Case]:
    for line in LIST.read_text().splitlines():
        _, name, px = line.split()
        if name != "-":
            yield Case("timm", name, "classification", partial(_build, name, int(px)))


def _build(name: str, px: int) -> tuple[nn.Module, Tensor]:
    model = timm.create_model(name, pretrained=False, num_classes=10)
    small = sum(p.numel() for p in model.parameters()) < 2e7
    return model, synthetic((4 if small and px <= 96 else 2, 3, px, px))


def choose() -> None:
    """Write the list: the smallest of a family, then the next smallest of other names, by building all without memory.

    A family without a supported norm is there with a dash, so that a new one can be told from it. Takes minutes.
    """
    lines = []
    for family in timm.list_modules():
        sized = []
        for name in timm.list_models(module=family):
            with torch.device("meta"):
                model = timm.create_model(name, pretrained=False)
            if not name.startswith("test_") and inventory(model).norms:
                sized.append((sum(p.numel() for p in model.parameters()), name, _px(model.pretrained_cfg)))
        stems: set[str] = set()
        for size, name, px in sorted(sized):
            stem = name[: len(name) - len(name.lstrip("abcdefghijklmnopqrstuvwxyz_"))].rstrip("_")
            if not stems or (stem not in stems and size < LARGE and len(stems) < PER_FAMILY):
                lines.append(f"{family} {name} {px}")
                stems.add(stem)
        if not stems:
            lines.append(f"{family} - -")
    LIST.write_text("\n".join(lines) + "\n")


def _px(config: Any) -> int:
    native: int = config["input_size"][-1]
    least: int = (config.get("min_input_size") or (3, PX, PX))[-1]
    return native if config.get("fixed_input_size") else min(max(PX, least), native)
