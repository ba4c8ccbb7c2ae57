"""A segmentation task made from real images: items pasted on a larger canvas over textured background; NumPy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SUFFIX = "-scenes"
ITEMS = 3
FOREGROUND = 0.2
"""Pixels of an item brighter than this belong to it."""


def make_scenes(
    x: NDArray[np.float32], y: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images (N, C, h, h) in [0, 1] with labels (N,) → scenes (N, C, H, H) and the class of every pixel (N, H, H).

    H is 1.5·h, rounded up to a multiple of 4. Classes: 0 for background, 1 + label for the item on top.
    Scene i shows item i and two others of the same part, each at a random place; the background is a random
    brightness with a gradient and noise, so that brightness alone does not tell items from background.

    >>> x, y = make_scenes(np.ones((4, 1, 8, 8), np.float32), np.arange(4), np.random.default_rng(0))
    >>> x.shape, y.shape, int(y.max()) <= 4
    ((4, 1, 12, 12), (4, 12, 12), True)
    """
    count, channels, small, _ = x.shape
    size = -(-small * 3 // 2 // 4) * 4
    line = np.linspace(-1, 1, size, dtype=np.float32)
    slope = rng.uniform(-0.2, 0.2, (count, 2, 1, 1)).astype(np.float32)
    level = rng.uniform(0.1, 0.4, (count, 1, 1)).astype(np.float32)
    smooth = level + slope[:, 0] * line[:, None] + slope[:, 1] * line
    noise = rng.normal(0, 0.08, (count, channels, size, size)).astype(np.float32)
    scenes = smooth[:, None] + noise
    labels = np.zeros((count, size, size), np.int64)
    others = np.stack([rng.permutation(count) for _ in range(ITEMS - 1)], 1)
    corners = rng.integers(0, size - small + 1, (count, ITEMS, 2))
    for i in range(count):
        for item, (top, left) in zip([*others[i], i], corners[i], strict=True):
            region = (slice(top, top + small), slice(left, left + small))
            on = x[item].mean(0) > FOREGROUND
            scenes[i][:, region[0], region[1]] = np.where(on, x[item], scenes[i][:, region[0], region[1]])
            labels[i][region][on] = y[item] + 1
    return np.clip(scenes, 0, 1), labels
