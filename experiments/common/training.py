"""One training loop, shared by the study, its recipes and the pilots."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CHECK_EVERY = 50
"""Steps between looks at the loss: a diverged epoch need not be trained to its end."""


@dataclass(frozen=True)
class Epoch:
    """``loss`` is the mean over the steps; not finite where the training diverged."""

    loss: float
    steps: int

    @property
    def diverged(self) -> bool:
        """Whether the loss became infinite or NaN."""
        return not math.isfinite(self.loss)


def train_epoch(
    network: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    loss_of: Callable[[nn.Module, Any, Any], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> Epoch:
    """Train ``network`` on every batch once; ends early where the loss is not finite."""
    network.train()
    total, steps = torch.zeros(()), 0
    for x, y in batches:
        optimizer.zero_grad()
        loss = loss_of(network, x, y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total = total.to(loss.device) + loss.detach()
        steps += 1
        if steps % CHECK_EVERY == 0 and not math.isfinite(float(total)):
            break
    return Epoch(float(total) / max(1, steps), steps)


def make_optimizer(network: nn.Module, name: str, rate: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """``adamw`` with torch's betas, or ``sgd`` with momentum 0.9."""
    if name == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=weight_decay)
    return torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=weight_decay)
