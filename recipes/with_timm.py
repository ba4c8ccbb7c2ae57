"""timm: convert a network, and load it again from the checkpoints that timm's own training script writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

import idealgroups as ig


def create_converted(name: str, images: Tensor, **settings: Any) -> nn.Module:
    """Build ``name`` and convert it; ``images`` are an example batch of shape (N, 3, H, W)."""
    model, _ = ig.convert(timm.create_model(name, **settings), images)
    return model


def load_converted(name: str, checkpoint: Path, **settings: Any) -> nn.Module:
    """Build ``name`` with the groups and the weights of ``checkpoint``."""
    return ig.restore(timm.create_model(name, **settings), checkpoint)
