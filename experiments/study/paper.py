"""The paper's published figures beside ours: measured where the data were at hand, "not run here" where not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from idealgroups.errors import IdealGroupsError

from ..common.markdown import Table
from .analysis import Row
from .config import Arm

NOT_RUN = "not run here"


@dataclass(frozen=True)
class Published:
    """One figure of arXiv 2302.03193: ``dataset`` and ``metric`` are those of a recipe's record.

    ``missing``: what it would take to run it as the paper did.
    """

    what: str
    value: str
    dataset: str
    metric: str
    missing: str
    complement: bool = False


_CALTECH = "its 9,000 images and a GPU; a recipe is there"
_PETS = "its 7,400 images and a GPU; a recipe is there"
_COCO = "its 118,000 images and GPUs for days; a recipe is there"

PUBLISHED = (
    Published("MLP on MNIST, error %", "1.67", "mnist", "test_error", "the network, which the abstract does not name"),
    Published("ResNet-101 on Caltech-101, top-1 error %", "22.247", "caltech101", "test_error", _CALTECH),
    Published(
        "ResNet-101 on Oxford-IIIT Pets, accuracy %",
        "77.076",
        "oxford-pets",
        "test_error",
        _PETS,
        complement=True,
    ),
    Published("Faster R-CNN FPN on COCO, AP", "40.7", "coco", "AP", _COCO),
    Published("Faster R-CNN FPN on COCO, AP50", "61.2", "coco", "AP50", _COCO),
    Published("Faster R-CNN FPN on COCO, AP75", "44.6", "coco", "AP75", _COCO),
    Published(
        "Panoptic FPN on COCO, PQ (stuff, things)",
        "42.147 (30.572, 49.816)",
        "coco-panoptic",
        "PQ",
        "its images, and a panoptic network, which torchvision does not have",
    ),
)


def read_recipes(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """Records of :func:`recipes.run.run_recipe` in ``*.recipe.json`` files of folders and their subfolders."""
    folders = [path for path in map(Path, paths) if path.is_dir()]
    return [_read(file) for folder in folders for file in sorted(folder.rglob("*.recipe.json"))]


def _read(file: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise IdealGroupsError(f"{file} is not JSON ({error}); delete it and run its recipe again.") from None
    return record


def paper_table(arms: Mapping[Arm, Mapping[str, Row]], recipes: Sequence[Mapping[str, Any]]) -> Table:
    """One row a published figure, one column a strategy that was run for any of them."""
    columns: dict[str, dict[str, float]] = {}
    for arm, rows in arms.items():
        if arm.images.name == "mnist" and arm.network.startswith("mlp") and not arm.images.train:
            for name, row in rows.items():
                error = 100 * fmean(row.test_error.values())
                own = columns.setdefault(name, {})
                own["mnist test_error"] = min(error, own.get("mnist test_error", error))
    by_key: dict[tuple[str, str], list[float]] = {}
    for record in recipes:
        for metric, value in record["result"].items():
            figure = f"{record['recipe']['dataset']} {metric}"
            by_key.setdefault((record["recipe"]["strategy"], figure), []).append(value)
    for (strategy, figure), values in by_key.items():
        columns.setdefault(strategy, {})[figure] = fmean(values)
    body = []
    for one in PUBLISHED:
        ours = [column.get(f"{one.dataset} {one.metric}") for column in columns.values()]
        cells = (NOT_RUN if v is None else f"{100 - v if one.complement else v:.2f}" for v in ours)
        body.append((one.what, one.value, *(cells if columns else (NOT_RUN,)), one.missing))
    header = ("row of the paper", "published", *(columns or ("ours",)), "what is missing")
    note = (
        "Networks and training differ: the paper's are not public. MNIST: all training images, best MLP of the study. "
        "The others: `python -m experiments.study recipe`, where the data are."
    )
    return Table("The paper's rows", header, tuple(body), note)
