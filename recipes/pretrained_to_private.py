"""From pretrained batch norm to private fine-tuning: calibrate on public images, then train with Opacus."""

from __future__ import annotations

from typing import Any

import torch
from opacus import PrivacyEngine
from torch import Tensor, nn
from torch.utils.data import DataLoader

import idealgroups as ig


def convert_on_public(pretrained: nn.Module, public_images: Tensor) -> nn.Module:
    """Group norms that put out what the batch norms did. No private image may be used: γ, β and eps depend on them."""
    model, plan = ig.convert(pretrained, public_images)
    print(plan)
    return model


def tune(model: nn.Module, private_data: DataLoader[Any], epsilon: float, epochs: int = 1, rate: float = 0.1) -> float:
    """Fine-tune ``model`` in place with δ = 1e-5, and return the ε that was spent."""
    engine = PrivacyEngine()
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    private, optimizer, loader = engine.make_private_with_epsilon(
        module=model.train(),
        optimizer=optimizer,
        data_loader=private_data,
        target_epsilon=epsilon,
        target_delta=1e-5,
        epochs=epochs,
        max_grad_norm=1.0,
    )
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(private(x), y).backward()
            optimizer.step()
    spent: float = engine.get_epsilon(1e-5)
    return spent
