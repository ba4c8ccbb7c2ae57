"""The paper's rows that need large data: ResNet-101 on Caltech-101 and Oxford-IIIT Pets, Faster R-CNN on COCO.

Everything is torchvision's (data sets, transforms, networks), trained from scratch; only the groups are ours. Detection
is in :mod:`detection`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from idealgroups.api import apply, plan
from idealgroups.errors import IdealGroupsError
from idealgroups.results import Plan

from .data import SPLIT_SEED
from .machine import describe_machine, pick_device

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VALIDATION_SHARE, CALTECH_TEST_SHARE = 0.1, 0.2
WARM_UP = 0.02
"""Share of the steps over which the learning rate rises to its full value."""

PLAN_IMAGES = 8


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


def run_recipe(recipe: Recipe) -> dict[str, Any]:
    """Train and test; returns a JSON-ready record with the plan, the losses and ``result`` (metric → value).

    Raises:
        IdealGroupsError: the data or torchvision are not there.
    """
    started = time.perf_counter()
    torch.manual_seed(recipe.seed)
    if recipe.dataset == "coco":
        from .detection import detect

        result, history, made = detect(recipe)
    else:
        result, history, made = classify(recipe)
    return {
        "recipe": dataclasses.asdict(recipe),
        "plan": None if made is None else made.to_dict(),
        "train_losses": history.train_losses,
        "steps": history.steps,
        "result": result,
        "seconds": time.perf_counter() - started,
        "machine": describe_machine(),
    }


def classify(recipe: Recipe) -> tuple[dict[str, float], History, Plan | None]:
    """Top-1 errors in percent: ``val_error`` after the last epoch and ``test_error``, both measured once."""
    from torchvision import models

    train, val, test, num_classes = classification_data(recipe)
    network = models.get_model(recipe.network or "resnet101", weights=None, num_classes=num_classes)
    batches = _loader(train, recipe, shuffle=True)
    network, made = with_groups(network, recipe, (torch.stack([train[i][0] for i in range(PLAN_IMAGES)]),), None)
    history = fit(network, recipe, batches, lambda net, x, y: F.cross_entropy(net(x), y))
    errors = {
        name: 100 * _error(network, _loader(part, recipe, shuffle=False))
        for name, part in (("val", val), ("test", test))
    }
    return {f"{name}_error": error for name, error in errors.items()}, history, made


def with_groups(network: nn.Module, recipe: Recipe, inputs: Any, loss: Any) -> tuple[nn.Module, Plan | None]:
    """The network with the groups of the recipe's strategy, planned on ``inputs``."""
    if recipe.strategy == "batch":
        return network, None
    made = plan(network, inputs, strategy=recipe.strategy, loss=loss, seed=recipe.seed)
    return apply(network, made, inplace=True), made


def fit(network: nn.Module, recipe: Recipe, batches: Iterable[tuple[Any, Any]], loss_of: Any) -> History:
    """SGD with momentum 0.9 under a cosine schedule with a short linear warm-up.

    Raises:
        IdealGroupsError: the loss is not finite.
    """
    device = pick_device()
    network.to(device).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=0.9, weight_decay=recipe.weight_decay
    )
    total = recipe.epochs * len(batches)  # type: ignore[arg-type]
    warm = max(1, round(WARM_UP * total))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (1 + math.cos(math.pi * step / total)) / 2)
    )
    history = History()
    for _ in range(recipe.epochs):
        losses = []
        for x, y in batches:
            optimizer.zero_grad()
            loss = loss_of(network, to_device(x, device), to_device(y, device))
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise IdealGroupsError(
                    f"the loss is not finite at step {history.steps + len(losses)}; lower the learning rate."
                )
        history.train_losses.append(float(np.mean(losses)))
        history.steps += len(losses)
    return history


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors inside lists, tuples and dicts on ``device``."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_device(item, device) for item in value]
    return value


def classification_data(recipe: Recipe) -> tuple[Dataset[Any], Dataset[Any], Dataset[Any], int]:
    """Training, validation and test part, and the number of classes; the split is drawn once for all seeds."""
    try:
        from torchvision import datasets
        from torchvision.transforms import v2
    except ImportError:
        raise IdealGroupsError("the recipes need torchvision; install idealgroups[zoo].") from None
    size = recipe.size or 224
    end = [v2.ToImage(), v2.RGB(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    moving = v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(), *end])
    still = v2.Compose([v2.Resize(round(size * 8 / 7), antialias=True), v2.CenterCrop(size), *end])

    def load(split: str, transform: Any) -> Any:
        try:
            if recipe.dataset == "caltech101":
                return datasets.Caltech101(recipe.folder, transform=transform, download=recipe.download)
            return datasets.OxfordIIITPet(recipe.folder, split=split, transform=transform, download=recipe.download)
        except RuntimeError as error:
            raise IdealGroupsError(
                f"{recipe.dataset} is not in {recipe.folder} ({str(error).split('.')[0]}); pass --download."
            ) from None

    rng = np.random.default_rng(SPLIT_SEED)
    source = load("trainval", still)
    order = rng.permutation(len(source))
    if recipe.dataset == "caltech101":
        count = round(CALTECH_TEST_SHARE * len(order))
        test: Dataset[Any] = Subset(source, order[:count].tolist())
        order, num_classes = order[count:], len(source.categories)
    else:
        test, num_classes = load("test", still), len(source.classes)
    held_out = max(1, round(VALIDATION_SHARE * len(order)))
    train = Subset(load("trainval", moving), order[held_out:].tolist())
    return train, Subset(source, order[:held_out].tolist()), test, num_classes


def _loader(data: Dataset[Any], recipe: Recipe, shuffle: bool) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(recipe.seed)
    size = min(recipe.batch_size, len(data))  # type: ignore[arg-type]
    return DataLoader(data, size, shuffle=shuffle, drop_last=shuffle, num_workers=recipe.workers, generator=generator)


@torch.no_grad()
def _error(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    network.eval()
    device = next(network.parameters()).device
    wrong = [(network(x.to(device)).argmax(1).cpu() != y).float() for x, y in batches]
    return float(torch.cat(wrong).mean())
