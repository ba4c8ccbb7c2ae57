"""The paper's large rows, run for real on tiny data of the same format, made here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import idealgroups as ig
from experiments.study.cli import study_app
from experiments.study.paper import NOT_RUN, paper_table, read_recipes
from experiments.study.recipes.classification import classification_data
from experiments.study.recipes.run import run_recipe
from experiments.study.recipes.training import Recipe

TINY = Recipe(network="resnet18", size=32, epochs=1, batch_size=4, learning_rate=0.01, workers=0)


def picture(file: Path, shade: int, size: int = 40, grey: bool = False) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(shade)
    pixels = rng.integers(0, 100, (size, size) if grey else (size, size, 3)) + shade % 150
    Image.fromarray(pixels.astype(np.uint8)).save(file)


def make_caltech(folder: Path) -> None:
    root = folder / "caltech101" / "101_ObjectCategories"
    (root / "BACKGROUND_Google").mkdir(parents=True)
    for category in ("ant", "beaver", "crab"):
        for number in range(1, 11):
            picture(root / category / f"image_{number:04d}.jpg", shade=number * 13, grey=number == 1)


def make_pets(folder: Path) -> None:
    root = folder / "oxford-iiit-pet"
    for split, start in (("trainval", 1), ("test", 100)):
        lines = []
        for label, breed in enumerate(("Abyssinian", "beagle"), 1):
            for number in range(start, start + 8):
                picture(root / "images" / f"{breed}_{number}.jpg", shade=number)
                lines.append(f"{breed}_{number} {label} 1 1\n")
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{split}.txt").write_text("".join(lines))


def make_coco(folder: Path) -> None:
    for part in ("train2017", "val2017"):
        images, boxes = [], []
        for number in range(1, 7):
            picture(folder / part / f"{number:012d}.jpg", shade=number, size=64)
            images.append({"id": number, "file_name": f"{number:012d}.jpg", "width": 64, "height": 64})
            if number > 1:  # the first image shows nothing
                box = {"id": number, "image_id": number, "category_id": 3, "bbox": [8, 8, 30, 20], "area": 600}
                boxes.append(box | {"iscrowd": 0, "segmentation": []})
        categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
        file = folder / "annotations" / f"instances_{part}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))


def test_caltech_is_split_once_into_disjoint_parts(tmp_path: Path) -> None:
    make_caltech(tmp_path)
    recipe = dataclasses.replace(TINY, folder=str(tmp_path))
    train, val, test, num_classes = classification_data(recipe)
    indices = [set(part.indices) for part in (train, val, test)]  # type: ignore[attr-defined]
    assert [len(part) for part in indices] == [22, 2, 6]
    assert len(set.union(*indices)) == 30
    assert num_classes == 3
    assert train[0][0].shape == test[0][0].shape == (3, 32, 32)
    other_seed = classification_data(dataclasses.replace(recipe, seed=1))
    assert other_seed[2].indices == test.indices  # type: ignore[attr-defined]


@pytest.mark.parametrize("strategy", ["isometric", "batch"])
def test_the_caltech_recipe_trains_and_tests(tmp_path: Path, strategy: str) -> None:
    make_caltech(tmp_path)
    record = run_recipe(dataclasses.replace(TINY, folder=str(tmp_path), strategy=strategy))
    assert record["steps"] == 22 // 4
    assert set(record["result"]) == {"val_error", "test_error"}
    assert 0 <= record["result"]["test_error"] <= 100
    if strategy == "batch":
        assert record["plan"] is None
    else:
        assert len(record["plan"]["sites"]) == 20
    json.dumps(record, allow_nan=False)


def test_the_pets_recipe_uses_the_official_test_split(tmp_path: Path) -> None:
    make_pets(tmp_path)
    recipe = dataclasses.replace(TINY, dataset="oxford-pets", folder=str(tmp_path))
    train, val, test, num_classes = classification_data(recipe)
    assert (len(train), len(val), len(test), num_classes) == (14, 2, 16, 2)  # type: ignore[arg-type]
    assert run_recipe(recipe)["steps"] == 3


def test_the_coco_recipe_trains_a_detector_and_the_command_stores_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pycocotools")
    make_coco(tmp_path / "coco")
    options = {
        "dataset": "coco",
        "network": "fasterrcnn_mobilenet_v3_large_320_fpn",
        "folder": tmp_path / "coco",
        "strategy": "layer",
        "size": 64,
        "epochs": 1,
        "batch-size": 2,
        "workers": 0,
        "out": tmp_path / "out",
    }
    tokens = [str(token) for name, value in options.items() for token in (f"--{name}", value)]
    study_app(["recipe", *tokens], result_action="return_value")
    (record,) = read_recipes([tmp_path])
    assert record["steps"] == 2  # five images show something
    assert list(record["result"]) == ["AP", "AP50", "AP75"]
    assert all(0 <= value <= 100 for value in record["result"].values())
    assert all(site["num_groups"] == 1 for site in record["plan"]["sites"])
    assert "AP50" in capsys.readouterr().out


def test_perfect_boxes_have_an_average_precision_of_100(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    from experiments.study.recipes.detection import average_precision, coco_part

    make_coco(tmp_path)
    data = coco_part(Recipe(folder=str(tmp_path)), "val2017")

    class Oracle(torch.nn.Module):
        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            box = torch.tensor([[8.0, 8.0, 38.0, 28.0]])
            return [{"boxes": box, "labels": torch.tensor([3]), "scores": torch.tensor([0.9])} for _ in images]

    class Blind(torch.nn.Module):
        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}
            return [nothing for _ in images]

    found = average_precision(Oracle(), data)
    # the box in the empty image is as sure as the five right ones, and comes before them
    assert found == pytest.approx(dict.fromkeys(("AP", "AP50", "AP75"), 100 * 5 / 6))
    assert average_precision(Blind(), data) == {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}


@pytest.mark.parametrize(
    ("dataset", "message"),
    [("caltech101", "pass --download"), ("oxford-pets", "pass --download"), ("coco", "train2017, val2017")],
)
def test_missing_data_are_an_error(tmp_path: Path, dataset: str, message: str) -> None:
    if dataset == "coco":
        pytest.importorskip("pycocotools")
    with pytest.raises(ig.IdealGroupsError, match=message):
        run_recipe(dataclasses.replace(TINY, dataset=dataset, folder=str(tmp_path)))


def test_rows_that_were_not_run_say_so() -> None:
    table = paper_table({}, [])
    assert all(row[2] == NOT_RUN and len(row[3]) > len(NOT_RUN) for row in table.rows)
    runs = [
        {"recipe": {"dataset": "oxford-pets", "strategy": "isometric"}, "result": {"test_error": error}}
        for error in (20.0, 30.0)
    ]
    rows = {row[0]: row[1:-1] for row in paper_table({}, runs).rows}
    assert rows["ResNet-101 on Oxford-IIIT Pets, accuracy %"] == ("77.076", "75.00")
    assert rows["Faster R-CNN FPN on COCO, AP"] == ("40.7", NOT_RUN)
