"""Data for pilots that no study uses: letters and digits of fonts, and five languages by 0.4 s of speech.

``glyphs.npz``: 32 px drawings of characters in 815 fonts (Debian's ``fonts-*`` packages), 36 classes with upper and
lower case folded. ``voices.npz``: telephone prompts in five languages at 8 kHz (``asterisk-core-sounds-*-wav``). Both
have a part for training, of which a seventh or so is held out here by whole font families, or by whole blocks of
prompts; their parts for testing are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from idealgroups.errors import IdealGroupsError

WINDOW, HOP, BINS = 3072, 64, 256
"""Samples of one spectrogram, between two of its columns, and in one Fourier transform."""


@dataclass(frozen=True)
class Task:
    """Inputs (N, C, …) and classes (N,), for training and for validation."""

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor
    num_classes: int


def glyphs(folder: Path, train: int = 0, validation: int = 2000) -> Task:
    """16 px characters, 36 classes; no font family is in both parts."""
    arrays = _read(folder / "glyphs.npz")
    x = F.avg_pool2d(torch.from_numpy(arrays["x_train"]).float()[:, None] / 255, 2)
    y = torch.from_numpy(arrays["y_folded_train"].astype(np.int64))
    held_out = torch.from_numpy(arrays["family_train"].astype(np.int64) % 7 == 0)
    return _task(x, y, held_out, 36, train, validation)


def voices(folder: Path, train: int = 0, validation: int = 2000) -> Task:
    """Log spectrograms (N, 24 bands, 48 columns) of 0.38 s, five languages; no prompt is in both parts."""
    arrays = _read(folder / "voices.npz")
    sound = torch.from_numpy(arrays["x_train"].astype(np.float32))
    label = torch.from_numpy(arrays["y_train"].astype(np.int64))
    held_out = torch.arange(len(sound)) // 20 % 7 == 0
    parts = []
    for start in (0, 2000, 4000):
        window = sound[:, start : start + WINDOW]
        loud = window.abs().mean(1) > 100
        parts.append((spectrogram(window[loud]), label[loud], held_out[loud]))
    x, y, out = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return _task(x, y, out, 5, train, validation)


def spectrogram(sound: Tensor) -> Tensor:
    """(N, WINDOW) samples → (N, 24, 48): the logarithm of the power, low bands first."""
    power = torch.stft(sound, BINS, HOP, window=torch.hann_window(BINS), return_complex=True).abs().square()
    return F.adaptive_avg_pool2d(power[:, 1:], (24, 48)).clamp_min(1.0).log()


def _task(x: Tensor, y: Tensor, held_out: Tensor, num_classes: int, train: int, validation: int) -> Task:
    """Shuffle both parts by one fixed seed, cut them to size and normalize by the training part."""
    generator = torch.Generator().manual_seed(7)

    def some(rows: Tensor, count: int) -> Tensor:
        return rows[torch.randperm(len(rows), generator=generator)[: count or None]]

    kept, val = some((~held_out).nonzero()[:, 0], train), some(held_out.nonzero()[:, 0], validation)
    x = (x - x[kept].mean()) / x[kept].std()
    return Task(x[kept].contiguous(), y[kept], x[val].contiguous(), y[val], num_classes)


def _read(file: Path) -> dict[str, NDArray[Any]]:
    if not file.is_file():
        raise IdealGroupsError(f"there is no {file}; put the arrays there that experiments/pilots/tasks.py describes.")
    with np.load(file) as arrays:
        return {key: arrays[key] for key in arrays}
