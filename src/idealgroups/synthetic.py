"""Make synthetic images: 1/f noise with a separate mean for every image, as photographs have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .errors import IdealGroupsError

DATA = ("pink", "noise")

IMAGE_MEAN_SHARE = 0.3
"""Share of an image's second moment, after per-channel normalization, that is its mean. CIFAR-10: 0.29.

White noise has a share of zero. It understates ρ in the first layers, so they get too many groups."""

CHANNEL_CORRELATION = 0.85
"""Correlation between color channels. CIFAR-10: 0.79 to 0.91."""


def synthetic(shape: tuple[int, ...], data: str = "pink", seed: int = 0) -> Tensor:
    """Return a batch of synthetic samples with zero mean and unit variance.

    Args:
        shape: (N, C, …), of the whole batch.
        data: ``noise`` is white. ``pink`` has an amplitude of 1/f over the positions, a separate mean for every sample
            and correlated channels. For shape (N, C), which has no positions, both are white.
        seed: the same seed gives the same batch.

    Raises:
        IdealGroupsError: a shape without a batch and a channel dimension, or another word for ``data``.

    >>> x = synthetic((64, 3, 16, 16))
    >>> tuple(x.shape), bool(abs(x.var() - 1) < 0.3)
    ((64, 3, 16, 16), True)
    """
    if len(shape) < 2 or any(size < 1 for size in shape):
        raise IdealGroupsError(f"an input needs a batch and at least one more dimension, all positive; got {shape}.")
    if data not in DATA:
        raise IdealGroupsError(f"data must be one of {', '.join(DATA)}, got {data!r}.")
    generator = torch.Generator().manual_seed(seed)
    if data == "noise" or len(shape) == 2:
        return torch.randn(shape, generator=generator, device="cpu")
    texture = _one_over_f(_correlated(shape, generator))
    mean = _correlated((*shape[:2], *(1 for _ in shape[2:])), generator)
    batch: Tensor = texture * (1 - IMAGE_MEAN_SHARE) ** 0.5 + mean * IMAGE_MEAN_SHARE**0.5
    return batch


def inputs_for(model: nn.Module, example_inputs: Any, input_size: Sequence[int] | None, seed: int) -> Any:
    """Return ``example_inputs``, or synthetic ones of shape ``input_size`` on the device of ``model``.

    Raises:
        IdealGroupsError: both are given, or neither.
    """
    if (example_inputs is None) == (input_size is None):
        raise IdealGroupsError(
            "give example_inputs, what the model takes, or input_size=, the shape of one input, as in (8, 3, 128, 128)."
        )
    if input_size is None:
        return example_inputs
    sizes = tuple(input_size) if isinstance(input_size, list | tuple) else ()
    if len(sizes) < 2 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise IdealGroupsError(
            f"input_size={input_size!r} is no shape; give positive integers, batch first, as in (8, 3, 128, 128)."
        )
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    samples = synthetic(sizes, seed=seed)
    return samples if parameter is None else samples.to(parameter.device)


def _correlated(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    own = torch.randn(shape, generator=generator, device="cpu")
    shared = torch.randn((shape[0], 1, *shape[2:]), generator=generator, device="cpu")
    mixed: Tensor = own * (1 - CHANNEL_CORRELATION) ** 0.5 + shared * CHANNEL_CORRELATION**0.5
    return mixed


def _one_over_f(white: Tensor) -> Tensor:
    """White noise (N, C, …) filtered to amplitude 1/f, zero mean, unit variance."""
    sizes = white.shape[2:]
    axes = tuple(range(2, white.ndim))
    square = torch.zeros(sizes, device="cpu")
    for axis, size in enumerate(sizes):
        frequency = torch.fft.fftfreq(size, device="cpu") ** 2
        square = square + frequency.reshape([-1 if a == axis else 1 for a in range(len(sizes))])
    amplitude = square.clamp_min(1e-12).rsqrt()
    amplitude.view(-1)[0] = 0
    pink: Tensor = torch.fft.ifftn(torch.fft.fftn(white, dim=axes) * amplitude, dim=axes).real
    unit: Tensor = pink / pink.std().clamp_min(1e-12)
    return unit
