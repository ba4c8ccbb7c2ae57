"""Run a layer on small inputs, on a copy, to see what it does."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..sandbox.copying import CopyAnyTensor, copied, copy_plain_tensors
from ..sandbox.supported import has_values
from ..sandbox.walking import buffers, named_modules, parameters

LOUD = 10.0
"""γ on trial: so large that any bound on the output shows."""


def first_shapes(channels: int) -> list[torch.Size]:
    """Shapes (N, C, …) to try. No other size equals ``channels``, so that no axis is taken for another by chance."""
    samples = 3 if channels != 3 else 5
    height, width = (2, 4) if channels not in (2, 4) else (6, 7)
    spatial = ((height, width), (height,), (height, width, height), ())
    return [torch.Size((samples, channels, *sizes)) for sizes in spatial]


def last_shapes(channels: int) -> list[torch.Size]:
    """Shapes (N, …, C), which a layer over the channels of (N, C, …) does not take; none for one channel."""
    samples = 3 if channels != 3 else 5
    height, width = (4, 5) if channels not in (4, 5) else (6, 7)  # two positions, normalized, are always 1 and -1
    return [torch.Size((samples, height, channels)), torch.Size((samples, height, width, channels))] * (channels > 1)


def example(shape: torch.Size) -> Tensor:
    """Normal numbers, the same each time; every sample and every channel has a mean and a scale of its own."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), device="cpu")
    samples = torch.linspace(0.5, 2.0, shape[0]).reshape(-1, *[1] * (x.ndim - 1))
    channels = torch.linspace(-1.0, 1.0, shape[1]).reshape(-1, *[1] * (x.ndim - 2))
    return x * samples + channels * samples


def twin_of(module: nn.Module) -> nn.Module:
    """A copy in float32 on the CPU, without hooks; with ones where there were no values."""
    parts = named_modules(module).values()
    tensors = (*parameters(parts), *buffers(parts))
    with torch.inference_mode(False):
        memo = {id(tensor): _ones(tensor) for tensor in tensors if not has_values(tensor)}
        copy_plain_tensors(parts, memo)
        with CopyAnyTensor():
            twin: nn.Module = copied(module, memo)
        if any(t.device.type != "cpu" or (t.is_floating_point() and t.dtype != torch.float32) for t in tensors):
            twin = twin.float().cpu()
    for part in named_modules(twin).values():
        for key, value in vars(part).items():
            if "hooks" in key and isinstance(value, dict):
                value.clear()
    return twin


def _ones(tensor: Tensor) -> Tensor:
    ones = torch.ones(tensor.shape, dtype=tensor.dtype, device="cpu")
    return nn.Parameter(ones, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else ones


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """No gradient, no trace on the random number generators, nothing printed, no warning."""
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def run(twin: nn.Module, x: Tensor, *, training: bool) -> Tensor | str:
    """The class's forward on ``x``; a sentence where it raises, or returns no tensor of the shape of ``x``."""
    twin.train(training)
    for child in twin.children():
        child.eval()  # a drop
    try:
        y: object = type(twin).forward(twin, x.clone())
    except Exception as error:  # most likely the wrong number of dimensions
        message = " ".join(str(error).split())[:200]
        return f"{type(error).__name__}: {message}" if message else type(error).__name__
    if not isinstance(y, Tensor):
        return f"returns a {type(y).__name__}"
    if y.shape != x.shape:
        return f"turns shape {tuple(x.shape)} into {tuple(y.shape)}"
    return y.float()
