"""Files for ``idealgroups convert``: trained weights in, a folder of images in, converted weights out."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..conversion.checkpoints import align, read_checkpoint
from ..errors import IdealGroupsError, one_line

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a ``state_dict`` that ``torch.save`` or safetensors wrote; one inside a checkpoint is found.

    Raises:
        IdealGroupsError: the file cannot be read, or holds the weights of another network.
    """
    read = read_checkpoint(path)
    names, parameters = (list(dict(part)) for part in (model.named_modules(), model.named_parameters()))
    try:
        model.load_state_dict(align(read, names, parameters).tensors)
    except RuntimeError as error:
        raise IdealGroupsError(f"{path} holds the weights of another network ({one_line(error)}).") from None


def read_folder(
    folder: Path, shape: tuple[int, ...], count: int, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> Tensor:
    """Up to ``count`` samples of ``folder`` and what is below it, (N, *shape), every k-th file in order of the path.

    Images are scaled and cut in the middle to the shape, and normalized with ``mean`` and ``std`` per channel (of
    ImageNet by default). Arrays (``.npy``) hold one sample each, ready for the model.

    Raises:
        IdealGroupsError: no such folder, fewer than two samples, or a file that is no image or has another shape.
    """
    if not folder.is_dir():
        raise IdealGroupsError(f"there is no folder {folder}; give one with images or .npy arrays.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (*IMAGES, ".npy"))
    if len(files) < 2:
        raise IdealGroupsError(f"{folder} holds {len(files)} images or .npy arrays; give at least two.")
    chosen = [files[i * len(files) // min(count, len(files))] for i in range(min(count, len(files)))]
    return torch.stack(
        [_array(path, shape) if path.suffix == ".npy" else _image(path, shape, mean, std) for path in chosen]
    )


def _array(path: Path, shape: tuple[int, ...]) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise IdealGroupsError(f"{path} cannot be read ({one_line(error)}).") from None
    if array.shape != shape:
        raise IdealGroupsError(
            f"{path} has the shape {'x'.join(map(str, array.shape))}; the model takes {'x'.join(map(str, shape))}."
        )
    return torch.from_numpy(array.astype(np.float32))


def _image(path: Path, shape: tuple[int, ...], mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Tensor:
    try:
        pil: Any = importlib.import_module("PIL.Image")
    except ImportError:
        raise IdealGroupsError("reading images needs Pillow; pip install pillow, or give .npy arrays.") from None
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise IdealGroupsError(
            f"the model takes {'x'.join(map(str, shape))}, which no image gives; give .npy arrays of this shape."
        )
    channels, height, width = shape
    try:
        with pil.open(path) as file:
            image = file.convert("RGB" if channels == 3 else "L")
    except OSError as error:
        raise IdealGroupsError(f"{path} is no image ({one_line(error)}).") from None
    scale = max(height / image.height, width / image.width)
    image = image.resize((max(width, round(image.width * scale)), max(height, round(image.height * scale))))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) / 255
    x = torch.from_numpy(pixels.reshape(height, width, channels)).permute(2, 0, 1)
    return (x - _channels(mean, IMAGENET_MEAN, channels)) / _channels(std, IMAGENET_STD, channels)


def _channels(given: tuple[float, ...] | None, default: tuple[float, ...], channels: int) -> Tensor:
    """One number a channel, (C, 1, 1)."""
    values = given or (default if channels == 3 else (sum(default) / 3,))
    if len(values) not in (1, channels):
        raise IdealGroupsError(f"--mean and --std take one number, or one for each of the {channels} channels.")
    return torch.tensor(values).expand(channels)[:, None, None]
