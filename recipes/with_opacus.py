"""Opacus: convert first, then make the network private; its checkpoints give the plain network back."""

from __future__ import annotations

from typing import Any

import torch
from opacus import PrivacyEngine
from torch import Tensor, nn
from torch.utils.data import DataLoader

import idealgroups as ig


def make_private(model: nn.Module, images: Tensor, loader: DataLoader[Any]) -> tuple[nn.Module, Any, DataLoader[Any]]:
    """Convert ``model`` for private training, and return what Opacus makes of it, of an optimizer and of ``loader``."""
    model, _ = ig.convert(model, images, optimizer="dp-sgd")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    private: tuple[nn.Module, Any, DataLoader[Any]] = PrivacyEngine().make_private(
        module=model, optimizer=optimizer, data_loader=loader, noise_multiplier=0.6, max_grad_norm=1.0
    )
    return private
