from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import idealgroups as ig
from experiments.study.config import Images
from experiments.study.data import SPLIT_SEED, crop, examples, load
from experiments.study.networks import build
from experiments.study.scenes import make_scenes


def write_npz(folder: Path, name: str = "small", color: bool = True, count: int = 40) -> None:
    """Every training image is of one brightness of its own, so that it can be told from the others."""
    shape = (8, 8, 3) if color else (8, 8)
    ramp = np.arange(count, dtype=np.uint8).reshape(-1, *(1 for _ in shape))
    x = np.broadcast_to(ramp, (count, *shape))
    y = np.arange(count) % 5
    np.savez(folder / f"{name}.npz", x_train=x, y_train=y[:, None], x_test=x[:10] + 100, y_test=y[:10])


def images(name: str = "small", size: int = 0, train: int = 0, validation: int = 10, test: int = 0) -> Images:
    return Images(name, size, train, validation, test)


def test_training_and_validation_images_are_disjoint_and_the_split_is_always_the_same(tmp_path: Path) -> None:
    write_npz(tmp_path)
    data = load(images(), tmp_path)
    shades = [set(part[:, 0, 0, 0].tolist()) for part in (data.x_train, data.x_val, data.x_test)]
    assert [len(part) for part in shades] == [30, 10, 10]
    assert len(set.union(*shades)) == 50
    load.cache_clear()
    again = load(images(), tmp_path)
    assert torch.equal(again.x_train, data.x_train)
    assert again.digest == data.digest
    # fewer training images are a part of more, and leave the validation images as they are
    fewer = load(images(train=20), tmp_path)
    assert torch.equal(fewer.y_train, data.y_train[:20])
    assert torch.equal(fewer.y_val, data.y_val)


def test_images_are_normalised_by_training_statistics_and_labels_belong_to_them(tmp_path: Path) -> None:
    write_npz(tmp_path)
    data = load(images(), tmp_path)
    assert data.x_train.shape == (30, 3, 8, 8)
    assert data.num_classes == 5
    assert torch.allclose(data.x_train.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(data.x_train.std((0, 2, 3)), torch.ones(3), atol=1e-5)
    both = torch.cat([data.x_train, data.x_val])[:, 0, 0, 0]
    labels = torch.cat([data.y_train, data.y_val])
    assert labels[both.argsort()].tolist() == [i % 5 for i in range(40)]


def test_images_are_resized_and_grey_ones_get_a_channel(tmp_path: Path) -> None:
    write_npz(tmp_path, "grey", color=False)
    data = load(images("grey", size=4), tmp_path)
    assert data.x_train.shape == (30, 1, 4, 4)
    assert data.size == 4


def save(folder: Path, name: str, x: Any) -> None:
    labels = np.arange(len(x)) % 5
    np.savez(folder / f"{name}.npz", x_train=x, y_train=labels, x_test=x[:10], y_test=labels[:10])


def test_a_table_is_taken_as_it_stands(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(3, 2, (40, 7)).astype(np.float32)
    save(tmp_path, "rows", features)
    data = load(images("rows-table"), tmp_path)
    assert data.x_train.shape == (30, 7, 1, 1)
    assert np.array_equal(data.x_test[:, :, 0, 0].numpy(), features[:10])
    assert build("mlp4", data.in_channels, data.num_classes, data.size)(data.x_train).shape == (30, 5)


@pytest.mark.parametrize("channels", [None, 3])
def test_series_are_images_of_one_row_shortened_by_means(tmp_path: Path, channels: int | None) -> None:
    shape = (40, 32) if channels is None else (40, channels, 32)
    samples = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
    save(tmp_path, "waves", samples)
    data = load(images("waves-series", size=16), tmp_path)
    assert data.x_train.shape == (30, channels or 1, 1, 16)
    halved = samples.reshape(40, channels or 1, 16, 2).mean(-1)
    train = halved[np.random.default_rng(SPLIT_SEED).permutation(40)[10:]]
    expected = (halved[:10] - train.mean((0, 2), keepdims=True)) / train.std((0, 2), keepdims=True, ddof=1)
    assert np.allclose(data.x_test[:, :, 0].numpy(), expected, atol=1e-5)
    assert build("series9", data.in_channels, data.num_classes, data.size)(data.x_train).shape == (30, 5)


def test_torchvision_files_are_read_where_there_is_no_npz(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 20), ("t10k", 5)):
        x = np.arange(count * 28 * 28, dtype=np.int64).astype(np.uint8)
        header = np.array([0x803, count, 28, 28], ">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + x.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(np.array([0x801, count], ">i4").tobytes() + labels.tobytes())
    data = load(images("mnist", validation=5), tmp_path)
    assert data.x_train.shape == (15, 1, 28, 28)
    assert data.y_test.tolist() == [0, 1, 2, 3, 4]


def test_scenes_show_items_on_a_background_and_name_the_class_of_every_pixel() -> None:
    rng = np.random.default_rng(1)
    x = np.ones((12, 1, 8, 8), np.float32)
    x[:, :, :2] = 0  # two dark rows that belong to no item
    y = np.arange(12) % 4
    scenes, labels = make_scenes(x, y, np.random.default_rng(rng))
    assert scenes.shape == (12, 1, 12, 12)
    assert labels.shape == (12, 12, 12)
    for i in range(12):
        assert (labels[i] == y[i] + 1).sum() >= 48  # item i lies on top, whole
        assert np.all(scenes[i, 0][labels[i] > 0] == 1)
        assert np.all(scenes[i, 0][labels[i] == 0] < 1)


def test_scenes_are_a_data_set_and_their_parts_come_from_the_same_parts(tmp_path: Path) -> None:
    data = load(Images("digits-scenes", 0, 60, 20, 30), tmp_path)
    assert data.x_train.shape == (60, 1, 12, 12)
    assert data.y_train.shape == (60, 12, 12)
    assert data.num_classes == 11
    half = load(Images("digits-scenes", 8, 60, 20, 30), tmp_path)
    assert half.y_val.shape == (20, 8, 8)
    assert set(half.y_val.unique().tolist()) <= set(range(11))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (images("mnits"), "did you mean mnist"),
        (images("unheard-of"), r"put a Keras-style unheard-of\.npz"),
        (images("cifar10"), r"--data\.download"),
        (images(train=35), "too few"),
        (images("broken"), "cannot read"),
        (images("poor"), "lacks x_test, y_test"),
        (images("flat"), "x_train of 2 axes, which are no images; try flat-table or flat-series"),
        (images("small-table"), r"x_train of 4 axes; it must be \(N, F\)"),
        (images("small-series"), r"x_train of 4 axes; it must be \(N, L\) or \(N, C, L\)"),
    ],
)
def test_what_is_missing_is_said_with_a_way_out(tmp_path: Path, wanted: Images, message: str) -> None:
    write_npz(tmp_path)
    (tmp_path / "broken.npz").write_text("no zip")
    np.savez(tmp_path / "poor.npz", x_train=np.zeros(3), y_train=np.zeros(3))
    save(tmp_path, "flat", np.zeros((40, 7)))
    with pytest.raises(ig.IdealGroupsError, match=message):
        load(wanted, tmp_path)


def test_crops_move_each_image_by_its_own_draw_and_let_zeros_in() -> None:
    images = torch.randn(200, 3, 8, 16)
    moved = crop(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    where = [
        {
            (down, right)
            for down in range(3)
            for right in range(3)
            if torch.equal(one[:, down : down + 8, right : right + 16], new)
        }
        for one, new in zip(padded, moved, strict=True)
    ]
    assert all(len(found) == 1 for found in where)
    assert len(set.union(*where)) == 9
    assert torch.equal(moved, crop(images, torch.Generator().manual_seed(0)))


def test_only_training_images_are_cropped(tmp_path: Path) -> None:
    write_npz(tmp_path)
    plain, cropped = load(images(), tmp_path), load(images("small-crops"), tmp_path)
    for part in ("x_train", "x_val", "x_test"):
        assert torch.equal(getattr(plain, part), getattr(cropped, part))
    rows = torch.arange(20)
    draw = torch.Generator().manual_seed(0)
    first, second = (examples(cropped, rows, draw)[0] for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(examples(plain, rows, draw)[0], plain.x_train[rows])
    assert examples(cropped.to(torch.device("cpu")), rows, draw)[0].ne(plain.x_train[rows]).any()
