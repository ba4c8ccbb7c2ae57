"""Which modules normalize over channels, and how to look at them. The one place that knows other people's classes.

A class is recognised by its base class where it has one in torch, otherwise by name and attributes, so that neither
torchvision nor timm needs to be installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_CHANNEL_LAYER_NORM = re.compile(r"LayerNorm\w*[123]d")
_ODD_NORMS = re.compile(r"Norm\w*[123]d|EvoNorm|FilterResponse|InplaceAbn|AdaGroupNorm|SpatialNorm|GroupNorm|BatchNorm|InstanceNorm")


@dataclass(frozen=True)
class Norm:
    """A normalization layer over (N, C, …), seen as what a GroupNorm in its place needs.

    ``weight`` (γ) and ``bias`` (β) have shape (C,) or are None; ``num_groups`` is None unless the layer is a group or
    instance norm already; ``after`` holds the names of the child modules applied to the output (drop, activation).
    """

    kind: str
    num_channels: int
    eps: float
    num_groups: int | None
    weight: Tensor | None
    bias: Tensor | None
    after: tuple[str, ...] = ()

    def finish(self, module: nn.Module, y: Tensor) -> Tensor:
        """Apply the layer's own activation, where it has one."""
        for name in self.after:
            y = getattr(module, name)(y)
        return y


def recognise(module: nn.Module) -> Norm | None:
    """The layer as a :class:`Norm`, or None where it is something else.

    >>> recognise(nn.BatchNorm2d(8)).num_channels, recognise(nn.LayerNorm(8))
    (8, None)
    """
    kind = type(module).__name__
    after = tuple(name for name in ("drop", "act") if isinstance(getattr(module, name, None), nn.Module))
    if isinstance(module, nn.GroupNorm):
        channels, groups = module.num_channels, module.num_groups
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        channels, groups = module.num_features, None
    elif isinstance(module, nn.modules.instancenorm._InstanceNorm):
        channels = module.num_features
        groups = channels
    elif _is_frozen_batch_norm(module):
        weight = module.weight
        assert isinstance(weight, Tensor)
        channels, groups = weight.numel(), None
    elif _is_channel_layer_norm(module):
        gamma = _vector(getattr(module, "weight", None))
        channels, groups = module.normalized_shape[0] if gamma is None else gamma.numel(), None
    else:
        return None
    return Norm(
        kind=kind,
        num_channels=int(channels),
        eps=float(getattr(module, "eps", 1e-5)),
        num_groups=groups,
        weight=_vector(getattr(module, "weight", None)),
        bias=_vector(getattr(module, "bias", None)),
        after=after,
    )


def why_not(module: nn.Module) -> str | None:
    """A sentence on a module that normalizes channels in a way we cannot plan; None for everything else.

    Only the module's own name can tell; what it calls is seen when it runs (:mod:`idealgroups.observe`).
    """
    if recognise(module) is not None or any(recognise(child) is not None for child in module.children()):
        return None
    name = type(module).__name__
    if _ODD_NORMS.search(name):
        return f"{name} normalizes in a way of its own, which no group norm stands for"
    return None


def is_token_layer_norm(module: nn.Module) -> bool:
    """LayerNorm over the last dimensions (transformers): not over channels of (N, C, …), so it is left alone."""
    return isinstance(module, nn.LayerNorm) and not _is_channel_layer_norm(module)


def is_lazy(module: nn.Module) -> bool:
    """An uninitialised lazy module, whose number of channels is not known yet."""
    has_uninitialized = getattr(module, "has_uninitialized_params", None)
    return bool(callable(has_uninitialized) and has_uninitialized())


def _is_frozen_batch_norm(module: nn.Module) -> bool:
    names = ("weight", "bias", "running_mean", "running_var")
    return "FrozenBatchNorm" in type(module).__name__ and all(isinstance(getattr(module, n, None), Tensor) for n in names)


def _is_channel_layer_norm(module: nn.Module) -> bool:
    """LayerNorm2d of torchvision and timm, and ConvNeXt's ``data_format="channels_first"``: over C of (N, C, …)."""
    if getattr(module, "data_format", None) == "channels_first":
        return _vector(getattr(module, "weight", None)) is not None and "LayerNorm" in type(module).__name__
    return isinstance(module, nn.LayerNorm) and any(_CHANNEL_LAYER_NORM.search(c.__name__) for c in type(module).__mro__)


def _vector(value: object) -> Tensor | None:
    return value.reshape(-1) if isinstance(value, Tensor) and not isinstance(value, torch.nn.UninitializedParameter) else None
