"""Which modules normalize over channels, and how to look at them. The one place that knows other people's classes.

A class is recognised by its base class where it has one in torch, otherwise by name and attributes, so that neither
torchvision nor timm needs to be installed. A subclass with a forward of its own is tried on a small input: a hidden
activation must not get lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..sandbox.copying import is_lazy
from .textbook import surprise

_CHANNEL_LAYER_NORM = re.compile(r"LayerNorm\w*[123]d")
_ODD_NORMS = re.compile(
    r"Norm\w*[123]d|EvoNorm|FilterResponse|InplaceAbn|AdaGroupNorm|SpatialNorm|GroupNorm|BatchNorm|InstanceNorm"
    r"|ChannelNorm|GraphNorm|PairNorm|(Glob|Chan|Cum)\w*(LayerNorm|LN)$"  # the last: speech separation networks
)
_AFTER = ("drop", "act")
_AFTER_GROUP_NORM = (*_AFTER, "activation")  # the layer itself stays when its number of groups changes
_OWN_TENSORS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
_READ_FORWARDS = ("torch.nn.", "torchvision.", "timm.", "idealgroups.")
"""Packages whose forward methods were read: normalize, scale and shift, then ``drop`` and ``act``, nothing else."""


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
    norm = _by_class(module)
    return None if norm is None or _objection(module, norm) else norm


def why_not(module: nn.Module) -> str | None:
    """A sentence on a module that normalizes channels in a way we cannot plan; None for everything else.

    Only the module itself can tell here; what it calls is seen when it runs (:mod:`idealgroups.measuring`).

    >>> why_not(type("RmsNorm2d", (nn.Module,), {})())
    'RmsNorm2d normalizes in a way of its own, which no group norm stands for'
    """
    norm = _by_class(module)
    if norm is not None:
        return _objection(module, norm)
    name = type(module).__name__
    if is_token_layer_norm(module) or not _ODD_NORMS.search(name):
        return None
    if any(recognise(part) is not None for part in module.modules()):
        return None  # a block that is named after the norm in it
    return f"{name} normalizes in a way of its own, which no group norm stands for"


def is_token_layer_norm(module: nn.Module) -> bool:
    """LayerNorm over the last dimensions (transformers): not over channels of (N, C, …), so it is left alone."""
    return isinstance(module, nn.LayerNorm) and not _is_channel_layer_norm(module)


def _by_class(module: nn.Module) -> Norm | None:
    """What the class promises; :func:`_objection` tells whether the module keeps to it."""
    gamma = _vector(getattr(module, "weight", None))
    groups: int | None = None
    after: tuple[str, ...] = _AFTER
    if isinstance(module, nn.GroupNorm):
        after = _AFTER_GROUP_NORM
        channels, groups = module.num_channels, module.num_groups
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        channels = module.num_features
    elif isinstance(module, nn.modules.instancenorm._InstanceNorm):
        channels = groups = module.num_features
    elif gamma is not None and (_is_frozen_batch_norm(module) or _is_channel_layer_norm(module)):
        channels = gamma.numel()
    elif isinstance(module, nn.LayerNorm) and _is_channel_layer_norm(module):
        channels = module.normalized_shape[0]
    else:
        return None
    return Norm(
        kind=type(module).__name__,
        num_channels=int(channels),
        eps=float(getattr(module, "eps", 1e-5)),
        num_groups=groups,
        weight=gamma,
        bias=_vector(getattr(module, "bias", None)),
        after=tuple(name for name in after if isinstance(getattr(module, name, None), nn.Module)),
    )


def _objection(module: nn.Module, norm: Norm) -> str | None:
    """Why a layer of a known class is not what its class promises, or None."""
    if not isinstance(module, nn.GroupNorm):  # a group norm stays itself when its number of groups changes
        tensors = {*module._parameters, *module._buffers} - _OWN_TENSORS
        own = sorted(tensors | (set(module._modules) - set(_AFTER)))
        if own:
            return f"{norm.kind} has parameters or layers of its own ({', '.join(own)}), which a group norm would lose"
    if is_lazy(module) or type(module).forward.__module__.startswith(_READ_FORWARDS):
        return None
    return surprise(module, norm)


def _is_frozen_batch_norm(module: nn.Module) -> bool:
    names = ("weight", "bias", "running_mean", "running_var")
    frozen = any("FrozenBatchNorm" in cls.__name__ for cls in type(module).__mro__)
    return frozen and all(isinstance(getattr(module, n, None), Tensor) for n in names)


def _is_channel_layer_norm(module: nn.Module) -> bool:
    """LayerNorm2d of torchvision and timm, and ConvNeXt's ``data_format="channels_first"``: over C of (N, C, …)."""
    if getattr(module, "data_format", None) == "channels_first":
        return _vector(getattr(module, "weight", None)) is not None and "LayerNorm" in type(module).__name__
    if not isinstance(module, nn.LayerNorm) or type(module).forward is nn.LayerNorm.forward:
        return False
    named = any(_CHANNEL_LAYER_NORM.search(cls.__name__) for cls in type(module).__mro__)
    return named and len(module.normalized_shape) == 1


def _vector(value: object) -> Tensor | None:
    known = isinstance(value, Tensor) and not isinstance(value, torch.nn.UninitializedParameter)
    return value.reshape(-1) if known else None  # type: ignore[attr-defined]
