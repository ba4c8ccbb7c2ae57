"""Calibration data in any form that people hold it in → batches as the model takes them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import IdealGroupsError
from ..sandbox.calling import describe
from ..sandbox.tree import tensors

NEEDED = "give a batch, or an iterable of batches such as a DataLoader"


def read_batches(model: nn.Module, data: Any, max_samples: int, parts: int | None = None) -> list[Any]:
    """The batches of ``data``, until ``max_samples`` samples are read.

    Args:
        model: takes the batches; its forward tells how many parts of a tuple from a loader it needs.
        data: one batch (a tensor, a tuple of positional or a dict of keyword arguments), or an iterable of batches
            (a list, a generator, a ``DataLoader``), with or without labels behind the inputs.
        max_samples: where to stop. A batch is never cut.
        parts: how many parts of a tuple the model takes; default as many as its forward requires.

    Raises:
        IdealGroupsError: no batch at all, fewer than two samples, values that are not finite, or no such data.
    """
    if isinstance(data, Tensor | tuple | Mapping):
        batches = [data]
    elif isinstance(data, Iterable):
        batches = list(_first(data, max_samples, parts or _required(model)))
        if not batches:
            raise IdealGroupsError(f"the data to calibrate on is empty; {NEEDED}.")
    else:
        raise IdealGroupsError(f"cannot calibrate on a value of type {type(data).__name__}; {NEEDED}.")
    total = 0
    for number, batch in enumerate(batches, start=1):
        found = list(tensors(batch))
        if not found:
            raise IdealGroupsError(f"batch {number} holds no tensor ({describe(batch)}); {NEEDED} of tensors.")
        for tensor in found:
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise IdealGroupsError(
                    f"batch {number} of the data to calibrate on holds NaN or infinite values; take them out."
                )
        total += _samples(batch)
    if total < 2:
        raise IdealGroupsError(
            f"cannot calibrate on {total or 'no'} sample{'s' * (total != 1)}; "
            "give at least two, better a few hundred, without labels."
        )
    return batches


def count_samples(batches: Iterable[Any]) -> int:
    """The first dimension of the first tensor of every batch, summed."""
    return sum(map(_samples, batches))


def first_samples(batch: Any, count: int) -> Any:
    """The first ``count`` samples of a batch whose tensors all have as many; any other batch as it is.

    >>> first_samples((torch.zeros(9, 3), torch.zeros(9)), 4)[0].shape
    torch.Size([4, 3])
    """
    sizes = {len(tensor) if tensor.ndim else 0 for tensor in tensors(batch)}
    return _cut(batch, count) if len(sizes) == 1 and sizes.pop() > count else batch


def _cut(value: Any, count: int) -> Any:
    if isinstance(value, Tensor):
        return value[:count]
    if isinstance(value, Mapping):
        return {key: _cut(item, count) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_cut(item, count) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(_cut(item, count) for item in value)
    return value


def move(value: Any, device: torch.device) -> Any:
    """A copy of a batch on ``device``, in float32 where it was in half precision."""
    if isinstance(value, Tensor):
        half = value.dtype in (torch.float16, torch.bfloat16)
        return value.detach().to(device, torch.float32 if half else value.dtype, copy=True)
    if isinstance(value, Mapping):
        return {key: move(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(move(item, device) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(move(item, device) for item in value)
    return value


def _first(data: Iterable[Any], max_samples: int, parts: int) -> Iterator[Any]:
    total = 0
    for item in data:
        batch = item
        if isinstance(item, list | tuple) and not hasattr(item, "_fields"):
            batch = item[0] if parts == 1 and len(item) > 0 else tuple(item[:parts])
        yield batch
        total += _samples(batch)
        if total >= max_samples:
            return


def _required(model: nn.Module) -> int:
    """How many positional arguments ``model`` cannot do without; labels and the like come behind them."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return max(1, sum(p.kind in positional and p.default is inspect.Parameter.empty for p in parameters))


def _samples(batch: Any) -> int:
    return next((len(tensor) for tensor in tensors(batch) if tensor.ndim > 0), 0)
