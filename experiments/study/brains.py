"""A segmentation task in three dimensions: patches of one volume of a brain, and MONAI's networks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from idealgroups.errors import IdealGroupsError

from .config import Images

SUFFIX = "-patches"
"""End of the names of data sets that are patches of a volume; their size is that of a patch."""

LABELS = ("tissue", "brain")
"""Arrays that may hold the class of every voxel; the first one that is there counts. 0 is outside."""

WIDTHS = (16, 32, 64)
Box = tuple[slice, slice, slice]
Part = tuple[NDArray[np.float32], NDArray[np.int64]]


def read_volume(file: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """The volume (X, Y, Z) and the class of every voxel.

    Raises:
        IdealGroupsError: the file cannot be read, or lacks them.
    """
    try:
        with np.load(file) as arrays:
            labels = next((name for name in LABELS if name in arrays), None)
            if "volume" in arrays and labels and arrays["volume"].ndim == 3:
                return arrays["volume"], arrays[labels]
    except (OSError, ValueError) as error:
        raise IdealGroupsError(
            f"cannot read {file} ({error}); it must be an .npz of a volume and its classes."
        ) from None
    raise IdealGroupsError(f"{file} must have a volume (X, Y, Z) and, of the same shape, {' or '.join(LABELS)}.")


def part_boxes(labels: NDArray[Any], size: int) -> dict[str, Box]:
    """Where the parts lie: training in the front half along y; behind it, validation low and test high along z.

    ``size`` voxels lie between any two parts. Nothing is split along x, because brains are symmetric there, and an
    average brain may be exactly so.

    >>> boxes = part_boxes(np.ones((8, 10, 12)), 2)
    >>> boxes["train"][1], boxes["val"][1:], boxes["test"][1:]
    (slice(0, 5, None), (slice(7, 10, None), slice(0, 5, None)), (slice(7, 10, None), slice(7, 12, None)))
    """
    inside = labels > 0
    along_y, along_z = (np.flatnonzero(inside.any(axes)) for axes in ((0, 2), (0, 1)))
    middle = int(along_y[0] + along_y[-1] + 1) // 2
    low = int(along_z[0] + along_z[-1] + 1 - size) // 2
    x_end, y_end, z_end = labels.shape
    behind = slice(middle + size, y_end)
    return {
        "val": (slice(0, x_end), behind, slice(0, low)),
        "train": (slice(0, x_end), slice(0, middle), slice(0, z_end)),
        "test": (slice(0, x_end), behind, slice(low + size, z_end)),
    }


def make_patches(images: Images, file: Path, seed: int) -> dict[str, Part]:
    """Patches (N, 1, D, D, D) in [0, 1] and the class of every voxel (N, D, D, D), for each part.

    Patches lie wholly in their part's box, and their centre is not outside the brain. They are drawn once by ``seed``,
    none twice; those of a part may overlap.

    Raises:
        IdealGroupsError: the numbers or the size are not given, or the volume is too small for them.
    """
    size = images.size
    counts = {"val": images.validation, "train": images.train, "test": images.test}
    if size < 2 or min(counts.values()) < 1:
        raise IdealGroupsError(
            f"{images.name} needs data.size of 2 or more, and data.train and data.test of 1 or more."
        )
    volume, labels = read_volume(file)
    parts = {}
    for stream, (part, box) in enumerate(part_boxes(labels, size).items()):
        shades, classes = volume[box], labels[box]
        fits = tuple(slice(size // 2, max(size // 2, extent - size + size // 2 + 1)) for extent in classes.shape)
        corners = np.argwhere(classes[fits] > 0)
        if len(corners) < counts[part]:
            raise IdealGroupsError(
                f"{file} has room for {len(corners)} {part} patches of {size} voxels a side, not for {counts[part]}; "
                "lower data.size, data.train, data.validation or data.test."
            )
        rng = np.random.default_rng([seed, stream])
        chosen = corners[rng.choice(len(corners), counts[part], replace=False)]
        cuts = [tuple(slice(at, at + size) for at in corner) for corner in chosen]
        x = np.stack([shades[cut] for cut in cuts])[:, None].astype(np.float32)
        parts[part] = (x / np.float32(255), np.stack([classes[cut] for cut in cuts]).astype(np.int64))
    return parts


def monai_unet(in_channels: int, num_classes: int, size: int) -> nn.Module:
    """MONAI's U-Net in 3-D with two convolutions a residual unit and batch norm: three levels, the last at size / 4."""
    network: nn.Module = _monai().UNet(
        spatial_dims=3, in_channels=in_channels, out_channels=num_classes,
        channels=WIDTHS, strides=(2, 2), num_res_units=2, norm="BATCH",
    )  # fmt: skip
    return network


def monai_segresnet(in_channels: int, num_classes: int, size: int) -> nn.Module:
    """MONAI's SegResNet in 3-D with batch norm: three levels of 16, 32 and 64 channels, one residual block each."""
    network: nn.Module = _monai().SegResNet(
        spatial_dims=3, in_channels=in_channels, out_channels=num_classes, init_filters=WIDTHS[0],
        blocks_down=(1,) * len(WIDTHS), blocks_up=(1,) * (len(WIDTHS) - 1), norm="BATCH", upsample_mode="deconv",
    )  # fmt: skip
    return network


def _monai() -> Any:
    try:
        from monai.networks import nets
    except ImportError:
        raise IdealGroupsError("the three-dimensional networks need MONAI; pip install monai.") from None
    return nets
