"""Warnings on what a conversion cannot keep, shown at the user's own line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..norms import Norm, inventory
from ..sandbox.walking import named_modules


def warn_of_lost_training(model: nn.Module, norms: Mapping[str, Norm]) -> None:
    """Warn where a layer of ``norms`` looks trained, because a (different) grouping changes what it computes.

    Batch norm: its running statistics have moved. Others: β, or γ where there is no β, differs between channels.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    normalized = [name for name in norms if _statistics_moved(modules[name], norms[name])]
    regrouped = [name for name in norms if name not in normalized and _affine_moved(modules[name], norms[name])]
    if normalized:
        warnings.warn(
            f"{_layers(normalized)} running statistics from training, which a group norm does not inherit: "
            "the network computes something else now, expect to retrain it.",
            UserWarning,
            stacklevel=outside(),
        )
    if regrouped:
        warnings.warn(
            f"{_layers(regrouped)} trained scales and shifts, and another grouping changes what they act on: "
            "the network computes something else now, expect to retrain it.",
            UserWarning,
            stacklevel=outside(),
        )


def trained_norms(model: nn.Module, norms: Mapping[str, Norm] | None = None) -> list[str]:
    """Names of the layers whose running statistics have moved, as training moves them.

    Args:
        model: the model.
        norms: its normalization layers, if they are known; otherwise it is looked through for them.
    """
    norms = inventory(model).norms if norms is None else norms
    return [name for name, module in named_modules(model).items() if _statistics_moved(module, norms.get(name))]


def outside() -> int:
    """The ``stacklevel`` of the first caller that is not part of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("idealgroups."):
        level, frame = level + 1, frame.f_back
    return level


def _layers(names: list[str]) -> str:
    if len(names) == 1:
        return f"the normalization layer {names[0] or 'itself'} has"
    return f"{len(names)} normalization layers (first: {names[0]}) have"


def _statistics_moved(module: nn.Module, norm: Norm | None) -> bool:
    """Whether running statistics are not as they were built, under the names of torch or, by hand, under any."""
    mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    if isinstance(mean, Tensor) and isinstance(var, Tensor):
        return not mean.is_meta and (bool((mean != 0).any()) or bool((var != 1).any()))
    if norm is None or not norm.over_batch:
        return False
    buffers = [t for name, t in module.named_buffers(recurse=False) if name not in (norm.weight, norm.bias)]
    return any(t.numel() == norm.num_channels and _varies(t) for t in buffers)


def _affine_moved(module: nn.Module, norm: Norm) -> bool:
    if getattr(module, "running_mean", None) is not None:
        return False
    name = norm.bias or norm.weight
    return name is not None and _varies(getattr(module, name))


def _varies(values: Tensor) -> bool:
    """Whether not all values are equal."""
    flat = values.detach().reshape(-1)
    return not flat.is_meta and flat.numel() > 0 and not torch.equal(flat, flat[:1].expand(flat.numel()))
