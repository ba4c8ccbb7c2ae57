"""A detection task: square tiles of photographs from above, and the boxes of what is to be found on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idealgroups.errors import IdealGroupsError

from .config import Images

SUFFIX = "-boxes"
"""End of the names of data sets of which boxes are to be found; NAME is a folder with files in COCO's format."""

FILES = {"train": "train.json", "test": "val.json"}
"""The photograph that is trained and validated on, and another one of the same site."""

Arrays = dict[str, NDArray[Any]]


def make_tiles(images: Images, folder: Path) -> tuple[Arrays, Arrays]:
    """Tiles (N, H, W, 3) of bytes and their boxes (N, K, 4), for each part.

    A box is x0, y0, x1, y1 in pixels; a tile with less than K boxes has rows of zeros behind them. Validation tiles are
    the lowest rows of the training photograph, see :func:`strips`. Training tiles without a box are left out, as in
    torchvision's training of detectors.

    Raises:
        IdealGroupsError: the files cannot be read, the numbers do not fit, or the tiles are not equal squares.
    """
    if images.size:
        raise IdealGroupsError(f"the boxes of {images.name} are in pixels; leave data.size at 0.")
    records = {part: read_coco(folder / name) for part, name in FILES.items()}
    tops = np.array([_top(image["file_name"]) for image in records["train"]["images"]])
    rows = strips(tops, records["train"]["images"][0]["height"], images.validation)
    full = {annotation["image_id"] for annotation in records["train"]["annotations"]}
    train = np.array([row for row in rows["train"] if records["train"]["images"][row]["id"] in full], np.int64)
    test = np.arange(len(records["test"]["images"]))
    if not len(train):
        raise IdealGroupsError(f"no tile in {folder / FILES['train']} that is for training has a box; give it some.")
    for part, wanted, available in (("train", images.train, len(train)), ("test", images.test, len(test))):
        if wanted > available:
            raise IdealGroupsError(f"{images.name} has {available} {part} tiles, not {wanted}; lower data.{part}.")
    picked = {
        "val": ("train", rows["val"]),
        "train": ("train", train[: images.train or None]),
        "test": ("test", test[: images.test or None]),
    }
    x, y = {}, {}
    for part, (source, chosen) in picked.items():
        shown = [records[source]["images"][row] for row in chosen]
        x[part] = _pixels([folder / "images" / image["file_name"] for image in shown])
        y[part] = pad_boxes([image["id"] for image in shown], records[source]["annotations"])
    return x, y


def read_coco(file: Path) -> dict[str, Any]:
    """What a file in COCO's format holds.

    Raises:
        IdealGroupsError: it cannot be read, or has no images.
    """
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IdealGroupsError(f"cannot read {file} ({error}); it must be a file in COCO's format.") from None
    if not record.get("images") or "annotations" not in record:
        raise IdealGroupsError(f"{file} must have images and annotations, as files in COCO's format have.")
    return record


def strips(tops: NDArray[np.int64], size: int, validation: int) -> dict[str, NDArray[np.int64]]:
    """Which tiles are for validation, and which for training, by the pixels above them.

    The lowest rows are for validation; the row of tiles above them is left out, because a crown on an edge is on both
    sides of it.

    Raises:
        IdealGroupsError: ``validation`` is not a number of whole rows, or nothing is left to train on.

    >>> {part: rows.tolist() for part, rows in strips(np.repeat([0, 8, 16, 24], 2), 8, 2).items()}
    {'val': [6, 7], 'train': [0, 1, 2, 3]}
    """
    first = np.sort(tops)[-validation:][0]
    found = {"val": np.flatnonzero(tops >= first), "train": np.flatnonzero(tops + 2 * size <= first)}
    if len(found["val"]) != validation or not len(found["train"]):
        counts = np.cumsum(np.unique(tops, return_counts=True)[1][::-1])[:-2].tolist()
        raise IdealGroupsError(
            f"validation tiles are whole rows of a photograph; set data.validation to one of {counts}."
        )
    return found


def pad_boxes(tiles: list[int], annotations: list[dict[str, Any]]) -> NDArray[np.float32]:
    """The boxes of each tile (N, K, 4), with rows of zeros behind them; K is the most that a tile has, at least 1.

    >>> pad_boxes([5, 7], [{"image_id": 7, "bbox": [1, 2, 10, 20]}]).tolist()
    [[[0.0, 0.0, 0.0, 0.0]], [[1.0, 2.0, 11.0, 22.0]]]
    """
    lists: dict[int, list[list[float]]] = {tile: [] for tile in tiles}
    for annotation in annotations:
        if annotation["image_id"] in lists:
            left, top, width, height = annotation["bbox"]
            lists[annotation["image_id"]].append([left, top, left + width, top + height])
    boxes = np.zeros((len(tiles), max(1, *map(len, lists.values())), 4), np.float32)
    for row, found in enumerate(lists.values()):
        boxes[row, : len(found)] = np.reshape(found, (-1, 4))
    return boxes


def mirror_boxes(boxes: Tensor, width: int) -> Tensor:
    """The boxes (..., 4) of tiles that are mirrored left to right; rows without area stay so.

    >>> mirror_boxes(torch.tensor([1.0, 2.0, 4.0, 5.0]), 10)
    tensor([6., 2., 9., 5.])
    """
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack([width - right, top, width - left, bottom], -1)


def _top(name: str) -> int:
    """Pixels above a tile in its photograph, from a name that ends in LEFT_TOP.png."""
    try:
        return int(Path(name).stem.rsplit("_", 1)[-1])
    except ValueError:
        raise IdealGroupsError(f"the tile {name} must tell its place; name tiles PHOTO_LEFT_TOP.png.") from None


def _pixels(files: list[Path]) -> NDArray[np.uint8]:
    """(N, H, W, 3), all of one size."""
    try:
        from PIL import Image
    except ImportError:
        raise IdealGroupsError("tiles are read with Pillow; install idealgroups[zoo].") from None
    try:
        tiles = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    except OSError as error:
        raise IdealGroupsError(f"cannot read a tile ({error}); put all of them into {files[0].parent}.") from None
    if len({tile.shape for tile in tiles}) > 1 or tiles[0].shape[0] != tiles[0].shape[1]:
        raise IdealGroupsError(f"the tiles in {files[0].parent} must be squares of one size.")
    return np.stack(tiles)
