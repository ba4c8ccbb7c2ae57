"""What is measured on each network: one function a part, one record an arm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def pool(task: Task) -> Tensor:
    """The unlabelled samples that every arm may use: fresh ones first."""
    return torch.cat([task.fresh.x, task.base.x])[:SAMPLES]


def kept(trained: nn.Module, task: Task, seed: int) -> Iterator[tuple[Record, Make]]:
    """Score without any training on labels."""
    for arm in KEPT:
        yield {"arm": arm}, lambda arm=arm: _scored(convert(arm, trained, pool(task), seed), task)


def budgets(trained: nn.Module, task: Task, seed: int) -> Iterator[tuple[Record, Make]]:
    """The budget of ``faithful`` against the score kept."""
    for budget in BUDGETS:
        arm = f"calibrated: faithful {budget:g}"
        yield {"budget": budget}, lambda arm=arm: _scored(convert(arm, trained, pool(task), seed), task)


def samples(trained: nn.Module, task: Task, seed: int) -> Iterator[tuple[Record, Make]]:
    """How many samples calibration needs; a random draw of the pool."""
    order = torch.randperm(len(pool(task)), generator=torch.Generator().manual_seed(seed))
    for count in COUNTS:
        if count <= len(order):
            few = pool(task)[order[:count]]
            yield {"samples": count}, lambda few=few: _scored(convert("calibrated: faithful", trained, few, seed), task)


def tune(trained: nn.Module, task: Task, seed: int) -> Iterator[tuple[Record, Make]]:
    """Fine-tuning on fresh labelled samples, scored on the way."""
    for size in (32, 2):
        for arm in TUNED:
            yield {"arm": arm, "batch": size}, lambda arm=arm, size=size: _tuned(arm, size, trained, task, seed)


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
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def _scored(made: Converted, task: Task) -> Record:
    return {
        "score": round(score(made.model, task.test, task.num_classes), 2),
        "output_residual": made.output_residual,
        "worst_residual": made.worst_residual,
        "groups": list(made.groups),
    }


PARTS = {"kept": kept, "budgets": budgets, "samples": samples, "tune": tune}
