"""Tells whether the samples of a batch see each other, which private and federated training rule out."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from .calling import call_model, copy_inputs, other_numbers
from .copying import copy_model
from .generators import sandbox
from .snapshot import Snapshot
from .tree import tensor_leaves, tensors, tree_map

TOLERANCE = 1e-4
"""Of the largest output: what rounding may move."""


def coupled(model: nn.Module, inputs: Any, *, is_copy: bool = False) -> bool | None:
    """Whether a change of one sample moves what the model returns for the others, in training.

    Runs a copy twice, without gradients, with the same random numbers: on ``inputs`` and on ``inputs`` whose first
    sample is another one. A batch of one is doubled first. Dropout is off.

    Args:
        model: any module that maps a batch to outputs with the samples along the first axis.
        inputs: as for :func:`idealgroups.plan`.
        is_copy: ``model`` may be run itself.

    Returns:
        None where it cannot be told: no input or no output has samples along its first axis, or one of the runs raises.

    >>> x = torch.randn(4, 3)
    >>> coupled(nn.BatchNorm1d(3), x), coupled(nn.GroupNorm(1, 3), x)
    (True, False)
    """
    if _samples(inputs) is None:
        return None
    return coupled_copy(model if is_copy else copy_model(model), model, inputs)


def coupled_copy(model: nn.Module, source: nn.Module, inputs: Any) -> bool | None:
    """:func:`coupled` of a copy of ``source`` that may be run itself: values that both have are not held twice."""
    samples = _samples(inputs)
    if samples is None:
        return None
    both = [copy_inputs(inputs), copy_inputs(inputs)]
    if samples == 1:
        both = [tree_map(_doubled, value) for value in both]
        samples = 2
    both[1] = tree_map(lambda leaf: _first_changed(leaf, samples), both[1])
    flags = {part: part.training for part in model.modules()}
    for part in flags:
        part.training = "drop" not in type(part).__name__.lower()
    snapshot = Snapshot(model, source)  # which puts these flags back as well
    try:
        return _others_moved(_output(model, both[0], snapshot), _output(model, both[1], snapshot), samples)
    except Exception:  # whatever a model raises on a changed input
        return None
    finally:
        for part, training in flags.items():
            part.training = training


def _output(model: nn.Module, inputs: Any, snapshot: Snapshot) -> Any:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        with sandbox(0, device), torch.no_grad(), redirect_stdout(sys.stderr):
            return call_model(model, inputs)
    finally:
        snapshot.restore()


def _samples(inputs: Any) -> int | None:
    """The size of the first axis that the tensors of the inputs share; the first tensor's where they differ.

    A tensor inside an object cannot be changed, so nothing could be told from it.
    """
    return next((len(tensor) for tensor in tensor_leaves(inputs) if tensor.ndim > 1), None)


def _doubled(leaf: Any) -> Any:
    return torch.cat([leaf, leaf]) if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == 1 else leaf


def _first_changed(leaf: Any, samples: int) -> Any:
    """Another first sample."""
    if not isinstance(leaf, Tensor) or leaf.ndim == 0 or len(leaf) != samples:
        return leaf
    changed = leaf.clone()
    changed[0] = other_numbers(leaf[0].flatten()).view_as(leaf[0])
    return changed


def _others_moved(first: Any, second: Any, samples: int) -> bool | None:
    seen = None
    for a, b in zip(tensors(first), tensors(second), strict=False):
        if a.shape != b.shape or a.ndim == 0 or len(a) != samples or not a.is_floating_point():
            continue
        seen = bool(seen) or not torch.allclose(a[1:], b[1:], rtol=0, atol=TOLERANCE * float(a.abs().max()))
    return seen
