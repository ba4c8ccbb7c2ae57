"""Faster R-CNN with a feature pyramid on data in COCO's format; the average precision is pycocotools'."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from idealgroups.errors import IdealGroupsError
from idealgroups.results import Plan

from ..machine import pick_device
from .training import History, Recipe, train_network, with_groups

PLAN_IMAGES = 2
METRICS = ("AP", "AP50", "AP75")


def detect(recipe: Recipe) -> tuple[dict[str, float], History, Plan | None]:
    """Train on train2017 and return AP, AP50 and AP75 of the boxes on val2017, in percent.

    The default network has norms in backbone, pyramid and box head. The plan is measured on the detector's own losses.
    """
    from torchvision import models

    train, test = coco_part(recipe, "train2017"), coco_part(recipe, "val2017")
    num_classes = max(train.coco.getCatIds()) + 1  # COCO's own numbers, of which some are unused; 0 is background
    sizes = {"min_size": recipe.size, "max_size": round(recipe.size * 5 / 3)} if recipe.size else {}
    name = recipe.network or "fasterrcnn_resnet50_fpn_v2"
    network = models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes, **sizes)
    shown = Subset(_wrapped(train), _with_objects(train))
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = DataLoader(
        shown,
        min(recipe.batch_size, len(shown)),
        shuffle=True,
        drop_last=True,
        num_workers=recipe.workers,
        generator=generator,
        collate_fn=_collate,
    )
    example = _collate([shown[i] for i in range(min(PLAN_IMAGES, len(shown)))])
    network, made = with_groups(network.train(), recipe, example, _total)
    history = train_network(network, recipe, batches, lambda net, images, targets: _total(net(images, targets)))
    return average_precision(network, test), history, made


def coco_part(recipe: Recipe, part: str) -> Any:
    """torchvision's CocoDetection of ``folder/PART`` and ``folder/annotations/instances_PART.json``."""
    try:
        from torchvision.datasets import CocoDetection
    except ImportError:
        raise IdealGroupsError("the recipes need torchvision; install idealgroups[zoo].") from None
    folder = Path(recipe.folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return CocoDetection(folder / part, folder / "annotations" / f"instances_{part}.json")
    except ModuleNotFoundError:
        raise IdealGroupsError("COCO data need pycocotools; install it with pip.") from None
    except OSError as error:
        raise IdealGroupsError(
            f"no COCO data in {folder} ({error.strerror}: {error.filename}); "
            "it needs train2017, val2017 and annotations."
        ) from None


@torch.no_grad()
def average_precision(network: nn.Module, data: Any) -> dict[str, float]:
    """COCO's AP, AP50 and AP75 in percent; 0 where nothing is found."""
    from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped,unused-ignore]
    from torchvision.transforms.v2.functional import to_dtype, to_image

    device = pick_device()
    network.to(device).eval()
    found: list[dict[str, Any]] = []
    for index, image_id in enumerate(data.ids):
        image = to_dtype(to_image(data[index][0]), torch.float32, scale=True).to(device)
        (boxes,) = network([image])
        found += _as_coco(image_id, boxes)
    if not found:
        return dict.fromkeys(METRICS, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(data.coco, data.coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: 100 * max(float(value), 0.0) for name, value in zip(METRICS, evaluation.stats, strict=False)}


def _as_coco(image_id: int, boxes: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Corners to corner and size, as COCO's result files have them."""
    corners = boxes["boxes"].cpu()
    sizes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist()
    labels, scores = boxes["labels"].tolist(), boxes["scores"].tolist()
    return [
        {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
        for box, label, score in zip(sizes, labels, scores, strict=True)
    ]


def _wrapped(data: Any) -> Any:
    from torchvision.datasets import wrap_dataset_for_transforms_v2
    from torchvision.transforms import v2

    data.transforms = v2.Compose(
        [
            v2.ToImage(),
            v2.RGB(),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.SanitizeBoundingBoxes(),
        ]
    )
    return wrap_dataset_for_transforms_v2(data, target_keys=("boxes", "labels"))


def _with_objects(data: Any) -> list[int]:
    return [i for i, image_id in enumerate(data.ids) if data.coco.getAnnIds(image_id, iscrowd=False)]


def _collate(samples: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Plain tensors, for images of different sizes in lists."""
    images = [image.as_subclass(Tensor) for image, _ in samples]
    return images, [{key: value.as_subclass(Tensor) for key, value in target.items()} for _, target in samples]


def _total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([loss.reshape(()) for loss in losses.values()]).sum()
