"""What is measured on each network: one function a part, one record an arm."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from opacus import PrivacyEngine
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from .arms import SAMPLES, Converted, convert
from .data import Split, Task
from .training import batches, score, train

Record = dict[str, Any]
Make = Callable[[], dict[str, Any]]

WAYS = ("one", "size 16", "32", "faithful")
KEPT = (
    "batch norm",
    *(f"naive: {way}" for way in WAYS[:3]),
    "opacus",
    *(f"calibrated: {way}" for way in WAYS),
    "calibrated: one + distilled",
    "calibrated: faithful + distilled",
)
BUDGETS = (0.0, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03)
COUNTS = (8, 16, 32, 64, 128, 256, 512)
TUNED = (
    "batch norm",
    "frozen",
    "naive: one",
    "naive: 32",
    "opacus",
    "calibrated: one",
    "calibrated: size 16",
    "calibrated: 32",
    "calibrated: faithful",
    "calibrated: faithful + distilled",
)
STEPS = (0, 50, 150, 500)
RATES = {2: 0.001, 32: 0.01}
"""Of fine-tuning, by batch size: SGD with momentum 0.9, constant."""

PRIVATE = ("opacus", "calibrated: faithful", "naive: one", "calibrated: one")
EPSILONS = (8.0, 3.0)
PRIVATE_BATCH, PRIVATE_RATE = 256, 0.1
"""Of private fine-tuning: one epoch of SGD with momentum 0.9, gradients clipped to 1."""


def pool(task: Task) -> Tensor:
    """The unlabelled samples that every arm may use: fresh ones first."""
    return torch.cat([task.fresh.x, task.base.x])[:SAMPLES]


def _converted(arm: str, trained: nn.Module, x: Tensor, seed: int, task: Task) -> Record:
    return _scored(convert(arm, trained, x, seed), task)


def kept(trained: nn.Module, task: Task, seed: int) -> Iterator[tuple[Record, Make]]:
    """Score without any training on labels."""
    for arm in KEPT:
        yield {"arm": arm}, partial(_converted, arm, trained, pool(task), seed, task)


def budgets(trained: nn.Module, task: Task, seed: int) -> Iterator[tuple[Record, Make]]:
    """The budget of ``faithful`` against the score kept."""
    for budget in BUDGETS:
        arm = f"calibrated: faithful {budget:g}"
        yield {"budget": budget}, partial(_converted, arm, trained, pool(task), seed, task)


def samples(trained: nn.Module, task: Task, seed: int) -> Iterator[tuple[Record, Make]]:
    """How many samples calibration needs; a random draw of the pool."""
    order = torch.randperm(len(pool(task)), generator=torch.Generator().manual_seed(seed))
    for count in COUNTS:
        if count <= len(order):
            few = pool(task)[order[:count]]
            yield {"samples": count}, partial(_converted, "calibrated: faithful", trained, few, seed, task)


def tune(trained: nn.Module, task: Task, seed: int) -> Iterator[tuple[Record, Make]]:
    """Fine-tuning on fresh labelled samples, scored on the way."""
    for size in (32, 2):
        for arm in TUNED:
            yield {"arm": arm, "batch": size}, partial(_tuned, arm, size, trained, task, seed)


def _tuned(arm: str, size: int, trained: nn.Module, task: Task, seed: int) -> Record:
    model = convert(arm, trained, pool(task), seed).model
    few = Split(task.test.x[:2000], task.test.y[:2000])
    optimizer = torch.optim.SGD(model.parameters(), lr=RATES[size], momentum=0.9)
    data = batches(task.fresh, size, STEPS[-1], seed, task.flips)
    scores = {STEPS[0]: score(model, few, task.num_classes)}
    for start, stop in pairwise(STEPS):
        part = [next(data) for _ in range(stop - start)]
        if arm == "frozen":
            _train_frozen(model, part, optimizer)
        else:
            train(model, part, optimizer, total=len(part))
        scores[stop] = score(model, few, task.num_classes)
    return {"scores": {str(step): round(value, 2) for step, value in scores.items()}}


def _train_frozen(model: nn.Module, data: list[tuple[Tensor, Tensor]], optimizer: torch.optim.Optimizer) -> None:
    """In evaluation mode, so that batch norm uses its running statistics; γ and β learn on."""
    model.eval()
    for x, y in data:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def private(trained: nn.Module, task: Task, seed: int) -> Iterator[tuple[Record, Make]]:
    """Fine-tuning with differential privacy (Opacus) on the fresh labelled samples; public ones for calibration."""
    for epsilon in EPSILONS:
        for arm in PRIVATE:
            yield (
                {"arm": arm, "epsilon": epsilon},
                partial(_private, arm, epsilon, trained, task, seed),
            )


def _private(arm: str, epsilon: float, trained: nn.Module, task: Task, seed: int) -> Record:
    model = convert(arm, trained, task.base.x[:SAMPLES], seed).model  # what it was pretrained on is public
    few = Split(task.test.x[:2000], task.test.y[:2000])
    before = score(model, few, task.num_classes)
    torch.manual_seed(seed)
    loader = DataLoader(TensorDataset(task.fresh.x, task.fresh.y), batch_size=PRIVATE_BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=PRIVATE_RATE, momentum=0.9)
    engine = PrivacyEngine()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on its random numbers, which are good enough for an experiment
        model.train()
        private_model, optimizer, loader = engine.make_private_with_epsilon(
            module=model,
            optimizer=optimizer,
            data_loader=loader,
            target_epsilon=epsilon,
            target_delta=1e-5,
            epochs=1,
            max_grad_norm=1.0,
        )
        for x, y in loader:
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(private_model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    after = score(model, few, task.num_classes)
    return {"before": round(before, 2), "score": round(after, 2), "noise": round(optimizer.noise_multiplier, 3)}


def _scored(made: Converted, task: Task) -> Record:
    return {
        "score": round(score(made.model, task.test, task.num_classes), 2),
        "output_residual": made.output_residual,
        "worst_residual": made.worst_residual,
        "groups": list(made.groups),
    }


PARTS = {"kept": kept, "budgets": budgets, "samples": samples, "tune": tune, "private": private}
