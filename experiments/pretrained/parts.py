"""What is measured on each network: one function a part, one record an arm."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from opacus import PrivacyEngine
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.common.stepping import fast_step

from .arms import SAMPLES, WIDTHS, Converted, convert, freeze, group_norms
from .data import Split, Task
from .fits import WAYS as WAYS_TO_FIT
from .fits import fit_all
from .training import batches, cross_entropy, score, train, train_frozen

Record = dict[str, Any]
Make = Callable[[], dict[str, Any]]

WAYS = ("one", "size 16", "32", "faithful 0.001", "faithful 0.004")
KEPT = (
    "batch norm",
    *(f"naive: {way}" for way in WAYS[:3]),
    "opacus",
    *(f"calibrated: {way}" for way in WAYS),
    "calibrated: one + distilled",
    "calibrated: faithful 0.001 + distilled",
    "calibrated: faithful 0.004 + distilled",
)
BUDGETS = (0.0, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03)
COUNTS = (32, 128, 512)
SAMPLES_TO_FIT = 48
FITTED = ("one", "32")
TUNED = (
    "batch norm",
    "frozen",
    "naive: one",
    "naive: 32",
    "opacus",
    "calibrated: one",
    "calibrated: size 16",
    "calibrated: 32",
    "calibrated: faithful 0.001",
    "calibrated: faithful 0.004",
    "calibrated: faithful 0.001 + distilled",
)
STEPS = (0, 50, 150, 500)
RUNS: tuple[tuple[int, float, tuple[str, ...]], ...] = (
    (2, 0.001, TUNED),
    (2, 0.0002, TUNED),
    (
        32,
        0.003,
        ("opacus", "naive: one", "calibrated: faithful 0.001", "calibrated: faithful 0.004", "batch norm", "frozen"),
    ),
    (32, 0.003, TUNED),
    (32, 0.01, TUNED),
)
"""Batch size, rate (SGD with momentum 0.9, constant) and arms of fine-tuning, what matters most first."""

PRIVATE = ("opacus", "calibrated: faithful 0.001", "naive: one", "frozen")
EPSILONS = (3.0, 8.0)
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
            yield {"samples": count}, partial(_converted, "calibrated: faithful 0.001", trained, few, seed, task)


def fits(trained: nn.Module, task: Task, seed: int) -> Iterator[tuple[Record, Make]]:
    """Other ways to fit γ and β."""
    for width in FITTED:
        for how in WAYS_TO_FIT:
            yield {"arm": f"{how}: {width}"}, partial(_fitted, how, width, trained, task)


def _fitted(how: str, width: str, trained: nn.Module, task: Task) -> Record:
    model = fit_all(group_norms(trained, WIDTHS[width]), trained, pool(task)[:SAMPLES_TO_FIT], how)
    return _scored(Converted(model), task)


def tune(trained: nn.Module, task: Task, seed: int) -> Iterator[tuple[Record, Make]]:
    """Fine-tuning on fresh labelled samples, scored on the way."""
    start = cache(lambda arm: convert(arm, trained, pool(task), seed).model)
    for size, rate, arms in RUNS:
        for arm in arms:
            yield {"arm": arm, "batch": size, "rate": rate}, partial(_tuned, arm, size, rate, start, task, seed)


def _tuned(arm: str, size: int, rate: float, start: Callable[[str], nn.Module], task: Task, seed: int) -> Record:
    model = copy.deepcopy(start(arm))
    few = Split(task.test.x[:2000], task.test.y[:2000])
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    step = fast_step(model, cross_entropy, optimizer)
    data = batches(task.fresh, size, STEPS[-1], seed, task.flips)
    scores = {STEPS[0]: score(model, few, task.num_classes)}
    for first, last in pairwise(STEPS):
        part = [next(data) for _ in range(last - first)]
        if arm == "frozen":
            train_frozen(model, part, optimizer, step)
        else:
            train(model, part, optimizer, total=len(part), step=step)
        scores[last] = score(model, few, task.num_classes)
    return {"scores": {str(step): round(value, 2) for step, value in scores.items()}}


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
    if arm == "frozen":
        freeze(model)
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


PARTS = {"kept": kept, "budgets": budgets, "samples": samples, "fits": fits, "tune": tune, "private": private}
