"""Checks whether a subclass of a normalization layer that overrides ``forward`` still computes the standard layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..sandbox.supported import has_values
from .forward import LOUD, example, first_shapes, last_shapes, quietly, run, twin_of
from .norm import Norm

_MEAN, _VARIANCE = 0.5, 2.0
"""Statistics that no past has made."""


def deviation_from_textbook(module: nn.Module, norm: Norm, *, briefly: bool = False) -> str | None:
    """A sentence where the class's forward is not the standard layer on every shape it takes; None where it is.

    Runs on a copy and small inputs, in training and in evaluation mode. γ and the running statistics are set, so that a
    layer initialised to zero shows what it does, and one that has been trained does the same as one that has not; hooks
    do not run. A group norm must also take another number of groups. A layer on the meta device, which cannot run, is
    believed. ``briefly``: on one shape in each mode, enough where a layer of another width is the standard one.
    """
    if not all(has_values(tensor) for tensor in (*module.parameters(), *module.buffers())):
        return None
    try:
        twin = twin_of(module)
    except Exception as error:  # whatever a user's __deepcopy__ or an exotic tensor raises
        return f"{norm.kind} has a forward of its own, which cannot be tried ({type(error).__name__}: {error})"
    with quietly():
        _set(twin, norm)
        found = _difference(twin, norm, briefly)
        if found is None and isinstance(twin, nn.GroupNorm) and norm.num_channels > 1:
            twin.num_groups = norm.num_channels if twin.num_groups == 1 else 1
            if _difference(twin, norm, briefly) is not None:
                return f"{norm.kind} keeps its number of groups elsewhere than in num_groups, so it cannot be changed"
    return found


def textbook(module: nn.Module, norm: Norm, x: Tensor, *, training: bool = False) -> Tensor:
    """What ``module`` is by its class: group, instance, batch or channel-wise layer norm of ``x``, before ``after``."""
    gamma, beta = norm.scale(module), norm.shift(module)
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, gamma, beta, norm.eps)
    if "running_mean" not in module._buffers:
        return F.layer_norm(x.movedim(1, -1), (norm.num_channels,), gamma, beta, norm.eps).movedim(-1, 1)
    mean, var = module._buffers["running_mean"], module._buffers["running_var"]
    is_instance = isinstance(module, nn.modules.instancenorm._InstanceNorm)
    if mean is None or (training and (is_instance or isinstance(module, nn.modules.batchnorm._BatchNorm))):
        normalize = F.instance_norm if is_instance else F.batch_norm
        return normalize(x, None, None, gamma, beta, True, eps=norm.eps)
    return F.batch_norm(x, mean, var, gamma, beta, False, eps=norm.eps)


def _difference(twin: nn.Module, norm: Norm, briefly: bool) -> str | None:
    """What ``twin`` does otherwise than the textbook, in a sentence."""
    # On (N, C) alone, layer norm over channels cannot be told from layer norm over the last dimension, and an instance
    # norm, which has nothing to normalize there, may take the samples for its positions (torch_geometric).
    positions_only = isinstance(twin, nn.LayerNorm | nn.modules.instancenorm._InstanceNorm)
    ran = {True: 0, False: 0}
    failure = ""
    for shape in first_shapes(norm.num_channels)[: -1 if positions_only else None]:
        x = example(shape)
        for training in (False, True):
            y = run(twin, x, training=training)
            if isinstance(y, str):
                failure = failure or y
                continue
            ran[training] += 1
            if not torch.allclose(y, _expected(twin, norm, x, training), rtol=1e-3, atol=1e-3):
                return f"{norm.kind} does more than normalize, scale and shift, which a group norm would lose"
        if briefly and ran[False] and ran[True]:
            return None
    # A synchronized batch norm trains only where there are processes to wait for.
    if not ran[False] or not (ran[True] or isinstance(twin, nn.modules.batchnorm._BatchNorm)):
        return f"{norm.kind} has a forward of its own, which does not take one tensor of shape (N, C, …) ({failure})"
    for shape in last_shapes(norm.num_channels):
        x = example(shape)
        y = run(twin, x, training=False)
        if isinstance(y, Tensor) and not _is_textbook_there(twin, norm, x, y):
            return f"{norm.kind} takes tensors of shape (N, …, C) and normalizes their last dimension"
    return None


def _expected(twin: nn.Module, norm: Norm, x: Tensor, training: bool) -> Tensor:
    return norm.finish(twin, textbook(twin, norm, x, training=training))


def _is_textbook_there(twin: nn.Module, norm: Norm, x: Tensor, y: Tensor) -> bool:
    """Whether ``x``, whose second size is not the number of channels, went the standard layer's way all the same."""
    try:
        expected = _expected(twin, norm, x, training=False)
    except (RuntimeError, ValueError):  # the standard layer does not take it
        return False
    return torch.allclose(y, expected, rtol=1e-3, atol=1e-3)


def _set(twin: nn.Module, norm: Norm) -> None:
    if (gamma := norm.scale(twin)) is not None:
        gamma.fill_(LOUD)
    for name, value in (("running_mean", _MEAN), ("running_var", _VARIANCE)):
        statistic = twin._buffers.get(name)
        if isinstance(statistic, Tensor):
            statistic.fill_(value)
