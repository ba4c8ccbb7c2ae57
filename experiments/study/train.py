"""One training run: a plan applied to a network, trained, validated each epoch and tested once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from idealgroups.api import apply
from idealgroups.results import Plan

from ..common.stepping import fast_step
from ..common.training import Epoch, make_optimizer, train_epoch
from .compiled import with_matrices
from .config import Images, Run
from .data import Dataset, examples
from .detector import find_boxes
from .federated import FEDERATED, federated_rounds
from .losses import are_boxes, count_of, loss_of
from .machine import describe_machine, pick_device
from .networks import HalfPrecision
from .planned import initial_network
from .precision import average_precision
from .private import Private, is_private, make_private
from .tiles import mirror_boxes

EVALUATION_BATCH, PATCHES = 500, 10
"""Images and patches of a volume that are evaluated at a time."""

OVERLAP, HALF = 0.4, 0.5
"""Least IoU of a box that is found with a true one: the accuracy is the average precision at the first of them."""


@dataclass(frozen=True)
class TrainJob:
    """One training, for all ``runs`` that differ by nothing but the name of a strategy that chose these groups.

    ``plan`` is :meth:`Plan.to_dict`, None for batch norm.
    """

    runs: tuple[Run, ...]
    plan: dict[str, Any] | None

    @property
    def images(self) -> Images:
        """The data set it needs."""
        return self.runs[0].arm.images


@dataclass(frozen=True)
class Outcome:
    """What came out. Lists have one value an epoch, the others are the last epoch's; NaN where the run diverged.

    ``privacy``: what a private training cost, see :meth:`Private.spent`. ``test_ap50``: where boxes are found, the
    average precision at an IoU of 0.5; the accuracies are those at 0.4.
    """

    train_losses: list[float]
    val_losses: list[float]
    val_accuracies: list[float]
    diverged: bool
    val_loss: float
    test_loss: float
    test_accuracy: float
    steps: int
    seconds: float
    machine: dict[str, str] = field(default_factory=describe_machine)
    privacy: dict[str, float] | None = None
    test_ap50: float | None = None


def train(job: TrainJob, dataset: Dataset) -> Outcome:
    """Train one network. The same job on the same kind of machine gives the same outcome, bit by bit.

    Batches are drawn anew each epoch, in an order that depends on the seed alone; the last, smaller one is left out.
    A loss that is not finite ends the run as diverged.
    """
    started = time.perf_counter()
    run = job.runs[0]
    device = pick_device()
    dataset = dataset.to(device)
    network = _network(run, job.plan, dataset).to(device)
    private = make_private(network, run, dataset.x_train, dataset.y_train) if is_private(run.arm.optimizer) else None
    network = private.network if private else network
    if run.arm.optimizer == FEDERATED:
        epochs = federated_rounds(network, dataset, run, _loss)
    else:
        epochs = _epochs(network, dataset, run, private)
    train_losses, val_losses, val_accuracies = [], [], []
    steps = 0
    for epoch in epochs:
        steps += epoch.steps
        val_loss, val_accuracy = evaluate(network, dataset.x_val, dataset.y_val)
        train_losses.append(epoch.loss)
        val_losses.append(val_loss)
        val_accuracies.append(val_accuracy)
        if not math.isfinite(train_losses[-1] + val_loss):
            break
    finished = math.isfinite(train_losses[-1] + val_losses[-1])
    test_loss, test_accuracy = evaluate(network, dataset.x_test, dataset.y_test) if finished else (math.nan, math.nan)
    diverged = not math.isfinite(test_loss)
    return Outcome(
        train_losses=train_losses,
        val_losses=val_losses,
        val_accuracies=val_accuracies,
        diverged=diverged,
        val_loss=math.nan if diverged else val_losses[-1],
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        steps=steps,
        seconds=time.perf_counter() - started,
        privacy=private.spent() if private else None,
        test_ap50=evaluate(network, dataset.x_test, dataset.y_test, HALF)[1]
        if finished and dataset.has_boxes
        else None,
    )


@torch.no_grad()
def evaluate(network: nn.Module, x: Tensor, y: Tensor, overlap: float = OVERLAP) -> tuple[float, float]:
    """Mean loss and share of right labels (of pixels, where pixels are classified; NaN where noise is predicted).

    Where boxes are found, their average precision at an IoU of ``overlap`` is in place of that share.
    """
    network.eval()
    loss = torch.zeros((), device=x.device, dtype=torch.float64)
    right = torch.zeros((), device=x.device, dtype=torch.float64)
    found: list[tuple[Tensor, Tensor]] = []
    count = PATCHES if x.dim() == 5 else EVALUATION_BATCH
    for start in range(0, len(x), count):
        labels = y[start : start + count]
        outputs = network(x[start : start + count])
        loss += loss_of(outputs, labels, "sum").double()
        if are_boxes(y):
            found += find_boxes(outputs)
        else:
            right += math.nan if y.is_floating_point() else (outputs.argmax(1) == labels).sum()
    accuracy = average_precision(found, y, overlap) if are_boxes(y) else float(right) / y.numel()
    return float(loss) / count_of(y), accuracy


def _epochs(network: nn.Module, dataset: Dataset, run: Run, private: Private | None) -> Iterator[Epoch]:
    """Train on all images in one place, epoch by epoch."""
    if private:
        optimizer, step = private.optimizer, None
    else:
        optimizer = make_optimizer(network, run.arm.optimizer, run.learning_rate, run.arm.weight_decay)
        step = fast_step(network, _loss, optimizer)
    batch_size = min(run.arm.batch_size, len(dataset.x_train))
    steps_per_epoch = private.steps_per_epoch if private else len(dataset.x_train) // batch_size
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=run.arm.epochs * steps_per_epoch)
    generator, layout = torch.Generator().manual_seed(run.seed), _layout(network, dataset.x_train)
    for _ in range(run.arm.epochs):
        batches = private.loader if private else _batches(dataset, batch_size, run.arm.flip, generator, layout)
        yield train_epoch(network, batches, _loss, optimizer, schedule, step)


def _network(run: Run, plan: dict[str, Any] | None, dataset: Dataset) -> nn.Module:
    network = initial_network(run.arm.network, dataset, run.seed)
    if plan is not None:
        network = apply(network, Plan.from_dict(plan), inplace=True)
    if isinstance(network, HalfPrecision):
        network = with_matrices(network)
    return network.to(memory_format=_layout(network, dataset.x_train))


def _layout(network: nn.Module, x: Tensor) -> torch.memory_format:
    """Convolutions of images are faster with the channels last, on CPUs and GPUs alike.

    Depthwise ones in half precision are not on a GPU: they take three times as long then.
    """
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    depthwise = isinstance(network, HalfPrecision) and any(one.groups == one.in_channels > 1 for one in convolutions)
    return torch.contiguous_format if x.dim() == 5 or depthwise else torch.channels_last


def _loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return loss_of(network(x), y)


def _batches(
    dataset: Dataset, batch_size: int, flip: bool, generator: torch.Generator, layout: torch.memory_format
) -> Iterator[tuple[Tensor, Tensor]]:
    count, device = len(dataset.x_train), dataset.x_train.device
    order = torch.randperm(count, generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5 if flip else torch.zeros(count, dtype=torch.bool)
    order, mirrored = order.to(device), mirrored.to(device)
    for start in range(0, count - batch_size + 1, batch_size):
        rows = order[start : start + batch_size]
        x, y = examples(dataset, rows, generator)
        if flip:
            mirror = mirrored[rows]
            x = torch.where(mirror.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)
            if y.dim() > 1:
                mirrored_y = mirror_boxes(y, dataset.size) if dataset.has_boxes else y.flip(-1)
                y = torch.where(mirror.view(-1, *[1] * (y.dim() - 1)), mirrored_y, y)
        yield x.contiguous(memory_format=layout), y
