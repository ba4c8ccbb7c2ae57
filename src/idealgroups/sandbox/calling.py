"""Call a model that somebody else wrote: its inputs and its errors."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .copying import CopyAnyTensor
from .tree import tree_map


def call_model(model: nn.Module, inputs: Any) -> Any:
    """The model on a tuple of positional arguments, a mapping of keywords, or anything else as its one argument."""
    if isinstance(inputs, tuple):
        return model(*inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(inputs)


def copy_inputs(value: Any) -> Any:
    """Inputs of our own, in float32 where they were in half precision; the model may change them in place.

    What requires a gradient does so in the copy: a checkpoint or a model of forces may need it.
    """
    return tree_map(_copy_leaf, value)


def _copy_leaf(value: Any) -> Any:
    if isinstance(value, Tensor):
        own = value.detach().clone()
        own = own.float() if own.dtype in (torch.float16, torch.bfloat16) else own
        return own.requires_grad_() if value.requires_grad else own
    try:
        with CopyAnyTensor():
            return copy.deepcopy(value)
    except Exception:  # what cannot be copied (a generator, a handle) is passed as it is
        return value


def other_numbers(values: Tensor, axis: int = 0) -> Tensor:
    """Others of the same kind and shape: labels and tokens are moved along ``axis``, so that they stay valid.

    >>> other_numbers(torch.tensor([1, 2])), other_numbers(torch.tensor([1.0, 2.0]))
    (tensor([2, 1]), tensor([5., 3.]))
    """
    moved = values.roll(1, axis) if values.ndim else values
    return moved * 2 + 1 if values.is_floating_point() or values.is_complex() else moved


def describe(value: Any) -> str:
    """Inputs in a few words: ``8x3x224x224`` for a tensor; the parts of a tuple or dict for others."""
    if isinstance(value, Tensor):
        return "x".join(map(str, value.shape)) or "scalar"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        parts = [describe(item) for item in value]
        if len(parts) > 1 and len(set(parts)) == 1:
            return f"({len(parts)} of {parts[0]})"
        return "(" + ", ".join(parts) + ")"
    text = str(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"
