"""Data as tensors in memory: training, validation and test parts, normalised by the training part's statistics.

Files come from torchvision's data sets or Keras-style ``.npz``; scikit-learn's digits need no file at all. Tables and
series are images of one pixel and of one row: F features are (N, F, 1, 1), C channels of length L are (N, C, 1, L).
"""

from __future__ import annotations

import dataclasses
import difflib
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from idealgroups.errors import IdealGroupsError

from .brains import SUFFIX as PATCHES
from .brains import make_patches
from .clients import SUFFIX as CLIENTS
from .clients import by_family, by_label
from .config import Images
from .diffusion import SUFFIX as NOISE
from .diffusion import add_noise
from .losses import are_boxes
from .scenes import SUFFIX, make_scenes
from .tiles import SUFFIX as BOXES
from .tiles import make_tiles

SPLIT_SEED = 20230206
"""One split for all seeds of a study, so that runs differ by initialization and batch order only."""

TORCHVISION = {
    "mnist": "MNIST",
    "fashion": "FashionMNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
CROPS = "-crops"
"""End of the names of data sets whose training images are cut anew at each step, after a margin of zeros is put around
them that is an eighth of their side (He et al. 2016: 4 of 32 pixels)."""

TABLE, SERIES = "-table", "-series"
"""Ends of the names of data sets that are no images: NAME-table is (N, F) and taken as it stands; NAME-series is
(N, L) or (N, C, L)."""

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Dataset:
    """Float images (N, C, H, W) and integer labels, (N,) or (N, H, W) where pixels are classified; H = W or H = 1.
    Patches of a volume are (N, 1, D, D, D), their labels (N, D, D, D).

    Where noise is to be predicted, training images are clean, for :func:`examples` to noise them; validation and test
    images are noised inputs (N, C + 1, H, W), and their noise (N, C, H, W) is in place of labels. ``num_classes`` is C.

    Where boxes are to be found, they are float labels (N, K, 4), see ``tiles.py``, and ``num_classes`` is 1.

    ``client``: (N,), the client of every training image, where they belong to clients. ``crops``: whether training
    images are cut at random.
    """

    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor
    y_test: Tensor
    num_classes: int
    digest: str
    client: Tensor | None = None
    crops: bool = False

    @property
    def in_channels(self) -> int:
        """Channels of what the network is given."""
        return self.x_val.shape[1]

    @property
    def predicts_noise(self) -> bool:
        """Whether noise is to be predicted, not a class."""
        return self.y_val.is_floating_point() and not self.has_boxes

    @property
    def has_boxes(self) -> bool:
        """Whether boxes are to be found."""
        return are_boxes(self.y_val)

    @property
    def size(self) -> int:
        """W of the images."""
        return self.x_train.shape[-1]

    def to(self, device: torch.device) -> Dataset:
        """The same tensors on ``device``."""
        parts = {
            name: getattr(self, name).to(device)
            for name in ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")
        }
        client = None if self.client is None else self.client.to(device)
        return dataclasses.replace(self, **parts, client=client)


@lru_cache(maxsize=8)
def load(images: Images, folder: str | Path = "data", download: bool = False) -> Dataset:
    """Read, split, resize and normalise a data set; the last ones are kept in memory.

    The split is drawn once (``SPLIT_SEED``): first the validation images, then the training images, both from the
    training data, whatever the file's order; test images are the first ones of the test data.

    Raises:
        IdealGroupsError: the data are not there, or too few.

    >>> images = Images("digits", size=0, train=500, validation=100, test=0)
    >>> data = load(images)
    >>> data.x_train.shape, data.x_val.shape, data.x_test.shape
    (torch.Size([500, 1, 8, 8]), torch.Size([100, 1, 8, 8]), torch.Size([360, 1, 8, 8]))
    """
    x, y = _parts(images, Path(folder), download)
    num_classes = 1 if images.name.endswith(BOXES) else int(max(labels.max() for labels in y.values())) + 1
    if images.name.endswith(SUFFIX):
        for stream, part in enumerate(x):
            x[part], y[part] = make_scenes(x[part], y[part], np.random.default_rng([SPLIT_SEED, stream]))
        num_classes += 1
    pixels = {part: _resize(torch.from_numpy(x[part]), images.size) for part in x}
    labels = {part: _resize_labels(torch.from_numpy(y[part]), images.size) for part in y}
    if not images.name.endswith(TABLE):
        axes = (0, *range(2, pixels["train"].dim()))
        mean = pixels["train"].mean(axes, keepdim=True)
        std = pixels["train"].std(axes, keepdim=True).clamp_min(1e-6)
        pixels = {part: ((value - mean) / std).contiguous() for part, value in pixels.items()}
    if images.name.endswith(NOISE):
        num_classes = pixels["train"].shape[1]
        for stream, part in enumerate(("val", "test")):
            generator = torch.Generator().manual_seed(SPLIT_SEED + stream)
            pixels[part], labels[part] = add_noise(pixels[part], generator)
    return Dataset(
        x_train=pixels["train"],
        y_train=labels["train"],
        x_val=pixels["val"],
        y_val=labels["val"],
        x_test=pixels["test"],
        y_test=labels["test"],
        num_classes=num_classes,
        digest=f"{zlib.crc32(x['train'].tobytes()):08x}",
        client=_clients(images, Path(folder), y["train"]) if images.name.endswith(CLIENTS) else None,
        crops=images.name.endswith(CROPS),
    )


def _parts(images: Images, folder: Path, download: bool) -> tuple[Arrays, Arrays]:
    """Inputs and labels of the parts by name, as they come."""
    if images.name.endswith(PATCHES):
        parts = make_patches(images, folder / f"{images.name.removesuffix(PATCHES)}.npz", SPLIT_SEED)
        return {part: one[0] for part, one in parts.items()}, {part: one[1] for part, one in parts.items()}
    if images.name.endswith(BOXES):
        x, y = make_tiles(images, folder / images.name.removesuffix(BOXES))
        return {part: _channels_first(tiles, images.name) for part, tiles in x.items()}, y
    arrays = read(_base(images), folder, download)
    rows = _rows(images, len(arrays["x_train"]))
    picked = {
        "val": (arrays["x_train"], arrays["y_train"], rows["val"]),
        "train": (arrays["x_train"], arrays["y_train"], rows["train"]),
        "test": (arrays["x_test"], arrays["y_test"], np.arange(len(arrays["x_test"]))[: images.test or None]),
    }
    shaped = _one_row if images.name.endswith((TABLE, SERIES)) else _channels_first
    x = {part: shaped(source[rows], images.name) for part, (source, _, rows) in picked.items()}
    y = {part: labels[rows].astype(np.int64).reshape(-1) for part, (_, labels, rows) in picked.items()}
    return x, y


def _base(images: Images) -> str:
    """The name of the data that a task is made of."""
    name = images.name
    for suffix in (SUFFIX, NOISE, TABLE, SERIES, CLIENTS, CROPS):
        name = name.removesuffix(suffix)
    return name


def _rows(images: Images, available: int) -> dict[str, NDArray[np.int64]]:
    """Which of the training images are for validation and which for training."""
    train = images.train or available - images.validation
    if train < 1 or train + images.validation > available:
        raise IdealGroupsError(
            f"{_base(images)} has {available} training images, which is too few for {train} to train on and "
            f"{images.validation} for validation; lower data.train or data.validation."
        )
    order = np.random.default_rng(SPLIT_SEED).permutation(available)
    return {"val": order[: images.validation], "train": order[images.validation : images.validation + train]}


def _clients(images: Images, folder: Path, labels: NDArray[np.int64]) -> Tensor:
    """The client of every training image: by the family of its font where the file has families, else by its label."""
    file = folder / f"{_base(images)}.npz"
    if file.exists():
        with np.load(file) as arrays:
            if "family_train" in arrays:
                families = arrays["family_train"]
                return torch.from_numpy(by_family(families[_rows(images, len(families))["train"]]))
    return torch.from_numpy(by_label(labels, np.random.default_rng(SPLIT_SEED)))


def examples(dataset: Dataset, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs and targets of the training images in ``rows``; ``generator`` draws noise to predict, and where to cut."""
    x, y = dataset.x_train[rows], dataset.y_train[rows]
    if dataset.crops:
        x = crop(x, generator)
    return add_noise(x, generator) if dataset.predicts_noise else (x, y)


def crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W) moved by up to an eighth of their side, each by its own draw; what comes in is zero."""
    count, _, height, width = images.shape
    margin = height // 8
    padded = F.pad(images, (margin, margin, margin, margin))
    down, right = torch.randint(2 * margin + 1, (2, count, 1), generator=generator).to(images.device)
    rows = down + torch.arange(height, device=images.device)
    columns = right + torch.arange(width, device=images.device)
    every = torch.arange(count, device=images.device)[:, None, None]
    return padded[every, :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def read(name: str, folder: Path, download: bool = False) -> Arrays:
    """The four raw arrays of a data set: ``folder/NAME.npz`` where it is, then torchvision's, then scikit-learn's."""
    file = folder / f"{name}.npz"
    if file.exists():
        return _from_npz(file)
    if name == "digits":
        return _digits()
    if name in TORCHVISION:
        return _from_torchvision(name, folder, download)
    near = difflib.get_close_matches(
        name, ["digits", *TORCHVISION, *(f.stem for f in sorted(folder.glob("*.npz")))], n=1
    )
    hint = f"did you mean {near[0]}?" if near else f"put a Keras-style {name}.npz into {folder}."
    raise IdealGroupsError(f"there is no data set {name!r}; {hint}")


def _from_npz(file: Path) -> Arrays:
    try:
        with np.load(file) as arrays:
            missing = [key for key in ARRAYS if key not in arrays]
            if not missing:
                return {key: arrays[key] for key in ARRAYS}
    except (OSError, ValueError) as error:
        raise IdealGroupsError(
            f"cannot read {file} ({error}); it must be a Keras-style .npz of {', '.join(ARRAYS)}."
        ) from None
    raise IdealGroupsError(f"{file} lacks {', '.join(missing)}; a Keras-style .npz has {', '.join(ARRAYS)}.")


def _digits() -> Arrays:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise IdealGroupsError("the digits need scikit-learn; install idealgroups[study].") from None
    bunch = load_digits()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(bunch.images))
    x = np.round(bunch.images[order] * (255 / 16)).astype(np.uint8)  # 17 grey levels, as uint8 like the others
    y = bunch.target[order]
    return {"x_train": x[360:], "y_train": y[360:], "x_test": x[:360], "y_test": y[:360]}


def _from_torchvision(name: str, folder: Path, download: bool) -> Arrays:
    try:
        from torchvision import datasets
    except ImportError:
        raise IdealGroupsError(
            f"{name} needs torchvision, or {name}.npz in {folder}; install idealgroups[zoo]."
        ) from None
    dataset = getattr(datasets, TORCHVISION[name])
    arrays: Arrays = {}
    for part in ("train", "test"):
        try:
            one = dataset(folder, train=part == "train", download=download)
        except RuntimeError:
            raise IdealGroupsError(
                f"{name} is not in {folder}; put {name}.npz or torchvision's files there, or pass --data.download."
            ) from None
        arrays[f"x_{part}"], arrays[f"y_{part}"] = np.asarray(one.data), np.asarray(one.targets)
    return arrays


def _one_row(x: NDArray[Any], name: str) -> NDArray[np.float32]:
    """(N, F) → (N, F, 1, 1) of a table; (N, L) or (N, C, L) → (N, C, 1, L) of series."""
    if x.ndim != 2 and (name.endswith(TABLE) or x.ndim != 3):
        wanted = "(N, F)" if name.endswith(TABLE) else "(N, L) or (N, C, L)"
        raise IdealGroupsError(f"{name} has x_train of {x.ndim} axes; it must be {wanted}.")
    x = x.astype(np.float32)
    if name.endswith(TABLE):
        return np.ascontiguousarray(x[:, :, None, None])
    return np.ascontiguousarray((x[:, None] if x.ndim == 2 else x)[:, :, None])


def _channels_first(x: NDArray[Any], name: str) -> NDArray[np.float32]:
    """(N, H, W) or (N, H, W, C), bytes or floats, → (N, C, H, W) floats in [0, 1]."""
    if x.ndim not in (3, 4):
        raise IdealGroupsError(
            f"{name} has x_train of {x.ndim} axes, which are no images; try {name}-table or {name}-series."
        )
    x = x[..., None] if x.ndim == 3 else x
    scale = np.float32(255) if x.dtype == np.uint8 else np.float32(1)
    return np.ascontiguousarray(np.moveaxis(x.astype(np.float32) / scale, -1, 1))


def _resize(x: Tensor, size: int) -> Tensor:
    if size in (0, x.shape[-1]):
        return x
    if x.shape[-2] == 1:
        return F.adaptive_avg_pool2d(x, (1, size))
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True)


def _resize_labels(y: Tensor, size: int) -> Tensor:
    if y.dim() == 1 or size in (0, y.shape[-1]):
        return y
    return F.interpolate(y[:, None].float(), (size, size), mode="nearest")[:, 0].long()
