"""Warnings on what a conversion cannot keep, shown at the user's own line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def warn_of_lost_training(model: nn.Module, names: Iterable[str]) -> None:
    """Warn where a layer in ``names`` looks trained, because a (different) grouping changes what it computes.

    Batch norm: its running statistics have moved. Others: β, or γ where there is no β, differs between channels.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    normalized = [name for name in names if _statistics_moved(modules[name])]
    regrouped = [name for name in names if name not in normalized and _affine_moved(modules[name])]
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


def trained_norms(model: nn.Module) -> list[str]:
    """Names of the layers whose running statistics have moved, as training moves them."""
    return [name for name, module in model.named_modules() if _statistics_moved(module)]


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


def _statistics_moved(module: nn.Module) -> bool:
    mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    if not isinstance(mean, Tensor) or not isinstance(var, Tensor) or mean.is_meta:
        return False
    return bool((mean != 0).any()) or bool((var != 1).any())


def _affine_moved(module: nn.Module) -> bool:
    if getattr(module, "running_mean", None) is not None:
        return False
    telling = next((t for t in (getattr(module, n, None) for n in ("bias", "weight")) if isinstance(t, Tensor)), None)
    if telling is None or telling.is_meta or telling.numel() == 0:
        return False
    first = telling.detach().reshape(-1)[0]
    return not torch.equal(telling.detach().reshape(-1), first.expand(telling.numel()))
