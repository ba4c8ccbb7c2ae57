"""The study's task of finding boxes: tiles and their split, the detector and its loss, average precision."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import idealgroups as ig
from experiments.evidence.parts import PARTS, read_part
from experiments.study.config import Data, Images, Optimizer, PrivateOptimizer, Run, Study
from experiments.study.data import Dataset, load
from experiments.study.detector import SmallFCOS, detection_loss, find_boxes, giou_loss, match, positions
from experiments.study.execute import check
from experiments.study.planned import PlanJob, plan_inputs, plan_strategies
from experiments.study.precision import average_precision
from experiments.study.tiles import pad_boxes, strips
from experiments.study.train import TrainJob, _batches, evaluate, train
from study_cases import ARM

torchvision = pytest.importorskip("torchvision")

SIZE, COLUMNS, ROWS = 32, 2, 5
TILES = Images("park-boxes", 0, 0, 2, 0)
TREES_ARM = dataclasses.replace(ARM, network="fcos", images=TILES, batch_size=2, epochs=2, flip=True)


def write_part(folder: Path, part: str, rows: int, seed: int) -> None:
    """Black tiles of a photograph; each has a bright box of its own shade, but for the second and the last."""
    rng, images, annotations = np.random.default_rng(seed), [], []
    for number in range(rows * COLUMNS):
        left, top = number % COLUMNS * SIZE, number // COLUMNS * SIZE
        name = f"{part}_photo_{left}_{top}.png"
        pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
        images.append({"id": 10 + number, "file_name": name, "width": SIZE, "height": SIZE})
        if number not in (1, rows * COLUMNS - 1):
            x, y, width, height = (int(value) for value in (*rng.integers(0, 12, 2), *rng.integers(8, 20, 2)))
            pixels[y : y + height, x : x + width] = 100 + number
            annotations.append({"image_id": 10 + number, "category_id": 1, "bbox": [x, y, width, height]})
        Image.fromarray(pixels).save(folder / "images" / name)
    (folder / f"{part}.json").write_text(json.dumps({"images": images, "annotations": annotations}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "park" / "images").mkdir(parents=True)
    write_part(folder / "park", "train", ROWS, 0)
    write_part(folder / "park", "val", 2, 1)
    return folder


@pytest.fixture(scope="module")
def park(folder: Path) -> Dataset:
    return load(TILES, folder)


def bright(tile: Tensor) -> list[float]:
    """The corners of what is brighter than the darkest pixel."""
    rows, columns = (tile[0] > tile[0].min() + 0.1).nonzero().unbind(1)
    return [float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def test_training_and_validation_tiles_are_strips_with_a_row_of_tiles_between() -> None:
    tops = np.tile(np.arange(12) * 192, 11)
    rows = strips(tops, 192, 22)
    assert (len(rows["val"]), len(rows["train"])) == (22, 99)
    assert tops[rows["val"]].min() - (tops[rows["train"]].max() + 192) == 192
    assert not set(rows["val"]) & set(rows["train"])
    with pytest.raises(ig.IdealGroupsError, match=r"data.validation to one of \[11, 22, 33"):
        strips(tops, 192, 20)
    with pytest.raises(ig.IdealGroupsError, match="whole rows"):
        strips(tops, 192, 132)


def test_tiles_are_a_data_set_and_every_box_lies_where_its_tile_shows_it(park: Dataset) -> None:
    assert [len(part) for part in (park.x_train, park.x_val, park.x_test)] == [5, 2, 4]
    assert (park.in_channels, park.num_classes, park.size) == (3, 1, SIZE)
    assert park.has_boxes
    assert not park.predicts_noise
    for x, y in ((park.x_train, park.y_train), (park.x_val, park.y_val), (park.x_test, park.y_test)):
        for tile, boxes in zip(x, y, strict=True):
            if boxes.any():
                assert boxes[0].tolist() == bright(tile)
            else:
                assert tile.std() < 1e-5
    shades = [set(part.amax((1, 2, 3)).tolist()) for part in (park.x_train, park.x_val)]
    assert not shades[0] & shades[1]
    assert park.y_train.any((1, 2)).all()
    assert park.y_val.any((1, 2)).tolist() == [True, False]
    assert park.y_test.any((1, 2)).tolist() == [True, False, True, False]


def test_tiles_have_as_many_rows_of_boxes_as_the_fullest() -> None:
    found = [{"image_id": tile, "bbox": [1, 2, 3, 4]} for tile in (4, 9, 4, 4)]
    boxes = pad_boxes([2, 4], found)
    assert boxes.shape == (2, 3, 4)
    assert not boxes[0].any()
    assert np.all(boxes[1] == [1, 2, 4, 6])


def test_a_mirrored_batch_has_its_boxes_mirrored(park: Dataset) -> None:
    plain = {round(float(x.max()), 4): y[0].tolist() for x, y in zip(park.x_train, park.y_train, strict=True)}
    mirrored = 0
    for x, y in _batches(park, 2, True, torch.Generator().manual_seed(0), torch.channels_last):
        for tile, boxes in zip(x, y, strict=True):
            assert boxes[0].tolist() == bright(tile)
            mirrored += boxes[0].tolist() != plain[round(float(tile.max()), 4)]
    assert 0 < mirrored < 4


BOX = torch.tensor([[[1.0, 2.0, 9.0, 10.0], [0.0, 0.0, 0.0, 0.0]]])
"""On a tile of 16 px, only the position (4, 4) lies in it, 3, 2, 5 and 6 px from its sides."""


def test_positions_belong_to_the_smallest_box_around_them_whose_centre_is_near() -> None:
    where = positions(torch.zeros(1, 4, 6))
    belongs, distances = match(where, BOX)
    assert belongs.tolist() == [[True, False, False, False]]
    assert distances[0, 0].tolist() == [3, 2, 5, 6]
    two = torch.tensor([[[0.0, 0.0, 48.0, 48.0], [26.0, 26.0, 46.0, 46.0]]])
    where = positions(torch.zeros(1, 64, 6))
    belongs, distances = match(where, two)
    of = {tuple(at): own for at, own in zip(where.tolist(), distances[0].tolist(), strict=True)}
    assert belongs.sum() == 4 + 9 - 1  # 20 and 28 are near the centre of the one, 28, 36 and 44 near that of the other
    assert (of[28.0, 28.0], of[20.0, 28.0]) == ([2, 2, 18, 18], [20, 28, 28, 20])
    assert not match(where, torch.zeros(3, 2, 4))[0].any()


def test_the_loss_of_a_tile_by_hand() -> None:
    outputs = torch.zeros(1, 4, 6)
    outputs[..., 2:] = 0.5  # boxes of 8 px around every position
    focal = (0.25 + 3 * 0.75) * 0.25 * math.log(2)
    union, hull = 64 + 64 - 7 * 6, 9 * 10
    giou = 7 * 6 / union - (hull - union) / hull
    by_hand = focal + 1 - giou + math.log(2)
    assert detection_loss(outputs, BOX).item() == pytest.approx(by_hand, rel=1e-5)
    empty = 4 * 0.75 * 0.25 * math.log(2)
    both = torch.cat([BOX, torch.zeros(1, 2, 4)])
    assert detection_loss(outputs.repeat(2, 1, 1), both).item() == pytest.approx((by_hand + empty) / 2, rel=1e-5)
    assert detection_loss(outputs.repeat(2, 1, 1), both, "sum").item() == pytest.approx(by_hand + empty, rel=1e-5)


def test_the_loss_of_the_centerness_is_least_at_the_square_root_of_both_shares() -> None:
    outputs = torch.zeros(1, 4, 6, requires_grad=True)
    share = math.sqrt(3 / 5 * 2 / 6)
    with torch.no_grad():
        outputs[..., 1] = math.log(share / (1 - share))
        outputs[..., 2:] = 0.5
    detection_loss(outputs, BOX).backward()
    assert outputs.grad is not None
    assert outputs.grad[0, :, 1].abs().max() < 1e-6


def test_the_iou_loss_of_distances_is_that_of_torchvision_for_boxes() -> None:
    draw = torch.Generator().manual_seed(0)
    one, other = (torch.rand(50, 4, generator=draw) * 20 + 0.1 for _ in range(2))
    centre = torch.tensor([30.0, 40.0])
    corners = [torch.cat([centre - sides[:, :2], centre + sides[:, 2:]], 1) for sides in (one, other)]
    assert torch.allclose(giou_loss(one, other), torchvision.ops.generalized_box_iou_loss(*corners), atol=1e-5)


def test_a_step_looks_at_no_value_so_that_it_can_be_recorded() -> None:
    network = SmallFCOS(3)
    with torch.autograd.profiler.profile() as profile:
        detection_loss(network(torch.randn(2, 3, SIZE, SIZE)), BOX.repeat(2, 1, 1)).backward()
    made = {event.name for event in profile.function_events}
    assert "aten::convolution_backward" in made
    assert not made & {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"}
    assert all(weight.grad is not None for weight in network.parameters())


def test_boxes_are_found_best_first_and_once() -> None:
    outputs = torch.full((1, 16, 6), -9.0)
    for position, logit in ((5, 2.0), (6, 3.0), (12, 1.0)):
        outputs[0, position, :2] = logit
    outputs[0, 5, 2:], outputs[0, 6, 2:] = torch.tensor([1, 1, 2, 1.0]), torch.tensor([2, 1, 1, 1.0])  # the same box
    outputs[0, 12, 2:] = torch.tensor([1, 1, 1, 1.0])
    ((scores, boxes),) = find_boxes(outputs)
    assert scores.tolist() == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-1))])
    assert boxes.tolist() == [[4, 4, 28, 20], [0, 20, 12, 32]]


def test_average_precision_by_hand() -> None:
    true = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]], [[0, 0, 10, 10], [0, 0, 0, 0]]])
    found = [
        (torch.tensor([0.9, 0.8]), torch.tensor([[0.0, 0, 10, 10], [1, 0, 10, 10]])),  # right, then the same once more
        (torch.tensor([0.7]), torch.tensor([[0.0, 0, 10, 5]])),  # half of it
    ]
    # recalls 1/3, 1/3, 2/3 at precisions 1, 1/2, 2/3: 34 of 101 recalls have 1, the next 33 have 2/3
    assert average_precision(found, true, 0.5) == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert average_precision(found, true, 0.51) == pytest.approx(34 / 101)
    nothing = [(torch.zeros(0), torch.zeros(0, 4))] * 2
    assert average_precision(nothing, true, 0.5) == 0
    assert average_precision(found, torch.zeros(2, 1, 4), 0.5) == 0


@pytest.mark.parametrize("overlap", [0.4, 0.5])
def test_average_precision_is_that_of_pycocotools(overlap: float) -> None:
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    draw = torch.Generator().manual_seed(1)
    true = torch.randint(0, 60, (8, 6, 4), generator=draw).float()
    true[..., 2:] = true[..., :2] + true[..., 2:] / 2 + 20
    found = []
    for boxes in true:
        guesses = torch.cat([boxes + torch.randn(6, 4, generator=draw) * 4, boxes[:3] + 2, boxes[:2] + 40])
        scores, order = torch.rand(len(guesses), generator=draw).sort(descending=True)
        found.append((scores, guesses[order]))

    def line(image: int, corners: list[float], number: int, **more: Any) -> dict[str, Any]:
        left, top, right, bottom = corners
        width, height = right - left, bottom - top
        box = {"bbox": [left, top, width, height], "area": width * height, "iscrowd": 0}
        return {"id": number, "image_id": image, "category_id": 1, **box, **more}

    coco = COCO()
    coco.dataset = {"info": {}, "images": [{"id": i} for i in range(8)], "categories": [{"id": 1}], "annotations": [
        line(i, box, 1 + 6 * i + j) for i, boxes in enumerate(true.tolist()) for j, box in enumerate(boxes)
    ]}  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        results = [
            line(i, box, 0, score=score)
            for i, (scores, boxes) in enumerate(found)
            for score, box in zip(scores.tolist(), boxes.tolist(), strict=True)
        ]
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.iouThrs = np.array([overlap])
        evaluation.evaluate()
        evaluation.accumulate()
    theirs = evaluation.eval["precision"][0, :, 0, 0, -1].mean()
    ours = average_precision(found, true, overlap)
    assert 0.2 < ours < 0.95
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_evaluation_is_the_mean_over_tiles_and_the_precision_of_what_is_found() -> None:
    outputs = torch.full((3, 4, 6), 0.0)
    outputs[..., 0] = torch.tensor([9.0, -9, -9, -9])
    outputs[..., 2:] = torch.tensor([3.0, 2, 5, 6]) / 8
    true = BOX.repeat(3, 1, 1)
    loss, precision = evaluate(nn.Identity(), outputs, true)
    assert loss == pytest.approx(detection_loss(outputs[:1], BOX).item(), rel=1e-5)
    assert precision == 1
    outputs[1, :, 2:] = torch.tensor([3.0, 2, 5, 6]) / 8 / math.sqrt(2.2)  # an IoU of 1 / 2.2
    assert evaluate(nn.Identity(), outputs, true, 0.4)[1] == 1
    assert evaluate(nn.Identity(), outputs, true, 0.5)[1] < 0.9


def test_a_run_learns_to_find_boxes_and_can_be_repeated(park: Dataset) -> None:
    assert plan_inputs("data", park, 0).shape == (5, 3, SIZE, SIZE)
    (planned,) = plan_strategies(PlanJob("fcos", TILES, 0, 2, ("gcd-32",)), park)
    assert planned.groups == (32,) * 14
    run = Run(dataclasses.replace(TREES_ARM, epochs=4), "gcd-32", 0.01, 0)
    first, second = (train(TrainJob((run,), planned.plan), park) for _ in range(2))
    assert first.steps == 8
    assert (first.train_losses, first.test_loss) == (second.train_losses, second.test_loss)
    assert first.train_losses[-1] < first.train_losses[0]
    assert first.test_ap50 is not None
    assert 0 <= first.test_ap50 <= first.test_accuracy <= 1
    one = dataclasses.replace(TREES_ARM, batch_size=1, epochs=1)
    assert train(TrainJob((Run(one, "batch", 0.01, 0),), None), park).steps == 5


def study(folder: Path, **changes: Any) -> Study:
    data = Data(("park-boxes",), str(folder), validation=2)
    return dataclasses.replace(Study(networks=("fcos",), data=data, sgd=Optimizer((0.01,))), **changes)


def test_the_task_is_checked_before_it_is_run(folder: Path) -> None:
    check(study(folder))
    private = study(folder, sgd=Optimizer(), dp_sgd=PrivateOptimizer((0.1,)))
    with pytest.raises(ig.IdealGroupsError, match="park-boxes cannot be trained with DP-SGD"):
        check(private)
    with pytest.raises(ig.IdealGroupsError, match="fcos with NAME-boxes"):
        check(study(folder, networks=("plain9",)))
    with pytest.raises(ig.IdealGroupsError, match="use it with NAME-boxes"):
        check(study(folder, data=Data(("digits",))))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (dataclasses.replace(TILES, size=16), "leave data.size at 0"),
        (dataclasses.replace(TILES, validation=3), r"set data.validation to one of \[2, 4, 6\]"),
        (dataclasses.replace(TILES, train=7), "has 5 train tiles, not 7"),
        (dataclasses.replace(TILES, test=5), "has 4 test tiles, not 5"),
        (dataclasses.replace(TILES, name="none-boxes"), "it must be a file in COCO's format"),
        (dataclasses.replace(TILES, name="bare-boxes"), "must have images and annotations"),
        (dataclasses.replace(TILES, name="gone-boxes"), r"cannot read a tile .*train_photo.*png"),
        (dataclasses.replace(TILES, name="idle-boxes"), "that is for training has a box"),
        (dataclasses.replace(TILES, name="lost-boxes"), "name tiles PHOTO_LEFT_TOP.png"),
    ],
)
def test_tiles_that_cannot_be_had_are_refused_in_a_sentence(folder: Path, images: Images, message: str) -> None:
    told = {part: (folder / "park" / f"{part}.json").read_text() for part in ("train", "val")}
    for name, texts in (
        ("bare", dict.fromkeys(told, "{}")),
        ("gone", told),
        ("idle", {**told, "train": json.dumps({**json.loads(told["train"]), "annotations": []})}),
        ("lost", {part: text.replace(".png", "_here.png") for part, text in told.items()}),
    ):
        (folder / name).mkdir(exist_ok=True)
        for part, text in texts.items():
            (folder / name / f"{part}.json").write_text(text)
    with pytest.raises(ig.IdealGroupsError, match=message):
        load(images, folder)


def test_the_arms_train_as_many_steps_with_batches_of_one_and_of_two() -> None:
    two, one = (read_part(PARTS / f"{name}.toml") for name in ("trees", "trees-one"))
    assert dataclasses.replace(two, batch_size=1, epochs=one.epochs) == one
    assert (two.batch_size, two.epochs) == (2, 2 * one.epochs)
    assert two.data.validation == 22
