"""The real data that the networks are trained, calibrated and tested on; every set is split once, for good.

Each task is a :class:`Task` of ready tensors. ``base`` is what a network is pretrained on; ``fresh`` are further
examples of the same kind that it has not seen, for calibration (labels ignored) and fine-tuning; ``test`` is only
ever used to count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from idealgroups import IdealGroupsError


@dataclass(frozen=True)
class Split:
    """Inputs (N, C, …) in float32 and labels: (N,) classes or (N, H, W) classes of pixels."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Tensor) -> Split:
        return Split(self.x[rows], self.y[rows])

    def to(self, device: torch.device) -> Split:
        return Split(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Task:
    """``flips``: whether a mirrored input is a likely one, so that training may mirror it."""

    name: str
    num_classes: int
    base: Split
    fresh: Split
    test: Split
    flips: bool

    def to(self, device: torch.device) -> Task:
        """The same with all tensors on ``device``."""
        parts = {name: getattr(self, name).to(device) for name in ("base", "fresh", "test")}
        return replace(self, **parts)


def cifar(folder: Path) -> Task:
    """CIFAR-10 at 16 px (means of 2 × 2 pixels): 40,000 base, 10,000 fresh, the first 4,000 of its test images."""
    with _open(folder, "cifar10.npz") as file:
        x, y = (np.concatenate([file[f"{k}_train"], file[f"{k}_test"]]) for k in "xy")
    images = F.avg_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2).half().float(), 2)
    images = (images / 255 - 0.47) / 0.24
    labels = torch.from_numpy(y.astype(np.int64))
    cuts = ((0, 40_000), (40_000, 50_000), (50_000, 54_000))
    base, fresh, test = (Split(images[a:b].contiguous(), labels[a:b]) for a, b in cuts)
    return Task("cifar10", 10, base, fresh, test, flips=True)


def brain(folder: Path) -> Task:
    """Axial slices of the ICBM152 average head, 96 × 112; four tissues. Blocks of slices with gaps between the splits.

    One volume, and a symmetric one: this is interpolation within a head, not generalisation to patients.
    """
    with _open(folder, "brain_mni.npz") as file:
        volume, tissue = file["volume"], file["tissue"]
    scan = torch.from_numpy(volume.astype(np.float32)).permute(2, 0, 1)[:, None]
    scan = F.avg_pool2d(scan, 2)[:, :, 1:97, 2:114] / 64 - 1
    label = torch.from_numpy(tissue.astype(np.int64)).permute(2, 0, 1)[:, ::2, ::2][:, 1:97, 2:114]
    filled = [z for z in range(len(scan)) if (label[z] > 1).float().mean() > 0.02]
    rows: dict[str, list[int]] = {"base": [], "fresh": [], "test": []}
    for block in range(0, len(filled), 10):  # of ten neighbours: six base, one gap, two fresh or test, one gap
        part = filled[block : block + 10]
        rows["base"] += part[:6]
        rows["fresh" if block // 10 % 2 else "test"] += part[7:9]
    base, fresh, test = (Split(scan[rows[k]].contiguous(), label[rows[k]]) for k in ("base", "fresh", "test"))
    return Task("brain", 4, base, fresh, test, flips=False)


def instruments(folder: Path) -> Task:
    """Notes of twelve families of instruments, one second at 8 kHz; a quarter of the training notes is fresh."""
    with _open(folder, "instruments.npz") as file:
        parts = {key: file[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    sound = {k: torch.from_numpy(parts[f"x_{k}"].astype(np.float32))[:, None] for k in ("train", "test")}
    sound = {k: F.avg_pool1d(x, 2) for k, x in sound.items()}
    sound = {k: x / x.std(-1, keepdim=True).clamp_min(30.0) for k, x in sound.items()}
    label = {k: torch.from_numpy(parts[f"y_{k}"].astype(np.int64)) for k in ("train", "test")}
    order = torch.randperm(len(label["train"]), generator=torch.Generator().manual_seed(0))
    cut = len(order) * 3 // 4
    train = Split(sound["train"], label["train"])
    base, fresh = train.take(order[:cut]), train.take(order[cut:])
    return Task("instruments", 12, base, fresh, Split(sound["test"], label["test"]), flips=False)


def glyphs(folder: Path) -> tuple[Task, list[Split]]:
    """Letters and digits of fonts at 16 px, 36 classes: pretraining on text fonts, and ten clients with other fonts.

    The clients have the display fonts of one collection, sorted by how much ink they use, so that each has a style of
    its own; the test is on families of that collection that no client has.
    """
    with _open(folder, "glyphs.npz") as file:
        parts = {k: {f: file[f"{f}_{k}"] for f in ("x", "y_folded", "font")} for k in ("train", "test")}
        display = np.char.startswith(file["fonts"], "fonts-aenigma/")
    x = {k: torch.from_numpy(part["x"]).float()[:, None] / 255 for k, part in parts.items()}
    whole = {
        k: Split(F.avg_pool2d(x[k], 2), torch.from_numpy(part["y_folded"].astype(np.int64)))
        for k, part in parts.items()
    }
    rows = {k: torch.from_numpy(display[part["font"]]) for k, part in parts.items()}
    font = torch.from_numpy(parts["train"]["font"].astype(np.int64))
    theirs = torch.from_numpy(np.unique(parts["train"]["font"][rows["train"].numpy()]).astype(np.int64))
    ink = torch.stack([whole["train"].x[font == f].mean() for f in theirs])
    clients = [
        whole["train"].take(torch.isin(font, part).nonzero()[:, 0]) for part in theirs[ink.argsort()].tensor_split(10)
    ]
    fresh = Split(torch.cat([c.x for c in clients]), torch.cat([c.y for c in clients]))
    base, test = whole["train"].take(~rows["train"]), whole["test"].take(rows["test"])
    return Task("glyphs", 36, base, fresh, test, flips=False), clients


TASKS = {"cifar10": cifar, "brain": brain, "instruments": instruments}


def _open(folder: Path, name: str) -> np.lib.npyio.NpzFile:
    path = folder / name
    if not path.is_file():
        raise IdealGroupsError(f"there is no {path}; put the data set there as experiments/pretrained says.")
    file: np.lib.npyio.NpzFile = np.load(path)
    return file
