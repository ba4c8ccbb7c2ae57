"""Give a model the groups that its weights were trained with, then the weights."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..errors import IdealGroupsError, one_line
from ..norms import inventory
from ..sandbox.copying import Model
from ..sandbox.supported import refuse_unsupported
from .change import all_or_nothing, set_norms
from .checkpoints import Weights, align, read_checkpoint
from .travel import read_settings


def restore(model: Model, checkpoint: Any, *, strict: bool = True) -> Model:
    """Load the weights of a converted model into a freshly built one, whose norms get the weights' numbers of groups.

    Args:
        model: the network as its class builds it, with batch norm or any other norm; it is changed in place. A
            converted model with other groups is fine as well.
        checkpoint: a path (a file of ``torch.save``, or safetensors with :func:`groups` in its metadata), a
            ``state_dict``, or a checkpoint that holds one, as Lightning writes it. Files are read with
            ``weights_only=True``: nothing in them is run. Prefixes of wrappers (``module.``, ``_orig_mod.``) are
            understood.
        strict: as in ``load_state_dict``: the names of the weights must be those of the model.

    Returns:
        ``model``.

    Raises:
        IdealGroupsError: the file cannot be read, says nothing of groups, or is of another network. The model is as it
            was then.

    >>> import torch, idealgroups as ig
    >>> def build():
    ...     return nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU())
    >>> trained, plan = ig.convert(build(), torch.randn(2, 3, 8, 8), strategy="group-size-16")
    >>> ig.restore(build(), trained.state_dict())[1].num_groups
    2
    """
    refuse_unsupported(model)
    read = read_checkpoint(checkpoint)
    if not read.settings:
        raise IdealGroupsError(
            f"{read.where} does not say with how many groups its weights were trained; apply the plan that they were "
            "trained with and use load_state_dict."
        )
    modules, parameters = model.named_modules(remove_duplicate=False), model.named_parameters(remove_duplicate=False)
    weights = align(read, [name for name, _ in modules], [name for name, _ in parameters])
    with all_or_nothing() as undo:
        set_norms(model, weights.settings, inventory(model).norms, undo, weights.where, weights.tensors.keys())
        _load(model, weights, strict)
    return model


def set_groups(model: Model, groups: Mapping[str, Any]) -> Model:
    """Give the norms of ``model`` these numbers of groups, in place; the weights stay.

    For models whose weights are loaded by another library, right after they are built: see ``docs/saving.md``.

    Args:
        model: a network with batch norm or any other norm.
        groups: as :func:`groups` returns it, or ``{layer: number of groups}``.

    Returns:
        ``model``.

    Raises:
        IdealGroupsError: a layer is missing or no norm, or the number does not divide its channels. Nothing has been
            changed then.

    >>> type(set_groups(nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32)), {"1": 4})[1]).__name__
    'GroupNorm'
    """
    refuse_unsupported(model)
    with all_or_nothing() as undo:
        set_norms(model, read_settings(groups, "groups"), inventory(model).norms, undo, "groups")
    return model


def _load(model: nn.Module, weights: Weights, strict: bool) -> None:
    """``load_state_dict`` that loads all or nothing: first into a copy without memory, to see whether it fits."""
    try:
        blank = _without_memory(model)
        if blank is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that nothing is copied into tensors without memory
                blank.load_state_dict(weights.tensors, strict=strict)
        model.load_state_dict(weights.tensors, strict=strict)
    except IdealGroupsError:
        raise
    except Exception as error:
        raise IdealGroupsError(
            f"{weights.where} does not fit the {type(model).__name__}: {one_line(error)}; build the model as it was "
            "built when the weights were saved."
        ) from None


def _without_memory(model: Model) -> Model | None:
    """A copy of ``model`` on the meta device, or None where it cannot be copied."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    try:
        return copy.deepcopy(model, memo)
    except Exception:  # whatever a user's __deepcopy__ raises
        return None
