"""One training loop, shared by the study, its recipes and the pilots."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .stepping import LossOf, Step, eager_step

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
    loss_of: LossOf,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    step: Step | None = None,
) -> Epoch:
    """Train ``network`` on every batch once; ends early where the loss is not finite.

    ``step`` makes one step of ``optimizer``, as :func:`eager_step` does by default.
    """
    network.train()
    step = step or eager_step(network, loss_of, optimizer)
    total, steps = torch.zeros(()), 0
    for x, y in batches:
        loss = step(x, y)
        schedule.step()
        total = total.to(loss.device) + loss
        steps += 1
        if steps % CHECK_EVERY == 0 and not math.isfinite(float(total)):
            break
    return Epoch(float(total) / max(1, steps), steps)


def make_optimizer(network: nn.Module, name: str, rate: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """``adamw`` with torch's betas, or ``sgd`` with momentum 0.9."""
    device = next(network.parameters()).device
    gpu = device.type == "cuda"
    lr = torch.tensor(float(rate), device=device) if gpu else rate  # a recorded step reads a rate that changes
    if name == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay, fused=gpu, capturable=gpu)
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay, fused=gpu)
