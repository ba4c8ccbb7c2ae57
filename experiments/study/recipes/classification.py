"""ResNet-101 on Caltech-101 and Oxford-IIIT Pets: torchvision's data sets, transforms and networks, from scratch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from idealgroups.errors import IdealGroupsError
from idealgroups.results import Plan

from ..data import SPLIT_SEED
from .training import History, Recipe, train_network, with_groups

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VALIDATION_SHARE, CALTECH_TEST_SHARE = 0.1, 0.2
PLAN_IMAGES = 8


def classify(recipe: Recipe) -> tuple[dict[str, float], History, Plan | None]:
    """Top-1 errors in percent: ``val_error`` after the last epoch and ``test_error``, both measured once."""
    from torchvision import models

    train, val, test, num_classes = classification_data(recipe)
    network = models.get_model(recipe.network or "resnet101", weights=None, num_classes=num_classes)
    batches = _loader(train, recipe, shuffle=True)
    network, made = with_groups(network, recipe, (torch.stack([train[i][0] for i in range(PLAN_IMAGES)]),), None)
    history = train_network(network, recipe, batches, lambda net, x, y: F.cross_entropy(net(x), y))
    errors = {
        name: 100 * _error(network, _loader(part, recipe, shuffle=False))
        for name, part in (("val", val), ("test", test))
    }
    return {f"{name}_error": error for name, error in errors.items()}, history, made


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
