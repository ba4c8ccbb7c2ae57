"""What the recipes share: their options, planning and the training with SGD."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from idealgroups.api import apply, plan
from idealgroups.errors import IdealGroupsError
from idealgroups.results import Plan

from ...common.training import make_optimizer, train_epoch
from ..machine import pick_device

WARM_UP = 0.02
"""Share of the steps over which the learning rate rises to its full value."""


@dataclass(frozen=True)
class Recipe:
    """One training of a paper's row.

    Attributes:
        dataset: ``caltech101`` (20% of the images drawn once as test data, for it has no split of its own),
            ``oxford-pets`` (its own test split) or ``coco`` (train2017, tested on val2017).
        network: a torchvision builder; default resnet101, for coco fasterrcnn_resnet50_fpn_v2.
        strategy: how the groups are chosen; ``batch`` leaves batch norm.
        folder: where torchvision's data sets are; for COCO the folder with train2017, val2017 and annotations.
        download: let torchvision fetch Caltech-101 and the Pets.
        size: pixels on a side; for coco of the shorter side, 0 being the detector's own 800.
        workers: processes that load images.
    """

    dataset: Literal["caltech101", "oxford-pets", "coco"] = "caltech101"
    network: str = ""
    strategy: str = "isometric"
    folder: str = "data"
    download: bool = False
    size: int = 0
    epochs: int = 100
    batch_size: int = 32
    learning_rate: float = 0.05
    weight_decay: float = 1e-4
    seed: int = 0
    workers: int = 4


@dataclass
class History:
    """Mean training loss an epoch."""

    train_losses: list[float] = field(default_factory=list)
    steps: int = 0


class Batches(Sized, Iterable[tuple[Any, Any]], Protocol):
    """Pairs of inputs and targets, as a DataLoader gives them."""


def with_groups(network: nn.Module, recipe: Recipe, inputs: Any, loss: Any) -> tuple[nn.Module, Plan | None]:
    """The network with the groups of the recipe's strategy, planned on ``inputs``."""
    if recipe.strategy == "batch":
        return network, None
    made = plan(network, inputs, strategy=recipe.strategy, loss=loss, seed=recipe.seed)
    return apply(network, made, inplace=True), made


def train_network(
    network: nn.Module, recipe: Recipe, batches: Batches, loss_of: Callable[[nn.Module, Any, Any], Tensor]
) -> History:
    """SGD with momentum 0.9 under a cosine schedule with a short linear warm-up.

    Raises:
        IdealGroupsError: the loss is not finite.
    """
    device = pick_device()
    network.to(device)
    optimizer = make_optimizer(network, "sgd", recipe.learning_rate, recipe.weight_decay)
    total = recipe.epochs * len(batches)
    warm = max(1, round(WARM_UP * total))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (1 + math.cos(math.pi * step / total)) / 2)
    )
    history = History()
    for number in range(1, recipe.epochs + 1):
        epoch = train_epoch(network, _on(device, batches), loss_of, optimizer, schedule)
        if epoch.diverged:
            raise IdealGroupsError(f"the loss is not finite in epoch {number}; lower the learning rate.")
        history.train_losses.append(epoch.loss)
        history.steps += epoch.steps
    return history


def _on(device: torch.device, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    for x, y in batches:
        yield to_device(x, device), to_device(y, device)


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors inside lists, tuples and dicts on ``device``."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_device(item, device) for item in value]
    return value
