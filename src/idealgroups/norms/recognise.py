"""Which modules normalize over channels, and how to look at them. The one place that knows other people's classes.

A class is recognised by its base class where it has one in torch, otherwise by name and attributes, so that neither
torchvision nor timm needs to be installed. A subclass with a forward of its own is tried on a small input: a hidden
activation must not get lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import UninitializedBuffer, UninitializedParameter

from ..sandbox.supported import is_lazy
from .norm import Inventory, Norm
from .textbook import deviation_from_textbook

_CHANNEL_LAYER_NORM = re.compile(r"LayerNorm\w*[123]d")
_ODD_NORMS = re.compile(
    r"Norm\w*[123]d|EvoNorm|FilterResponse|InplaceAbn|AdaGroupNorm|SpatialNorm|GroupNorm|BatchNorm|InstanceNorm"
    r"|ChannelNorm|GraphNorm|PairNorm|(Glob|Chan|Cum)\w*(LayerNorm|LN)$"  # the last: speech separation networks
)
_AFTER = ("drop", "act")
_AFTER_GROUP_NORM = (*_AFTER, "activation")  # the layer itself stays when its number of groups changes
_OWN_TENSORS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def inventory(model: nn.Module, skip: Callable[[str], str | None] = lambda name: None) -> Inventory:
    """Look at every module of ``model`` once.

    Args:
        model: any module.
        skip: a layer's name → why it is not to be tried, or None. Layers of torch's own classes need no trial.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.LazyLinear(8), nn.LayerNorm(8))
    >>> found = inventory(net)
    >>> {name: norm.num_channels for name, norm in found.norms.items()}, list(found.tokens)
    ({'1': 8}, ['4'])
    """
    norms: dict[str, Norm] = {}
    odd: dict[str, str] = {}
    skipped: dict[str, str] = {}
    tokens = set()
    for name, module in model.named_modules():
        if is_token_layer_norm(module):
            tokens.add(name)
            continue
        norm = _by_class(module)
        if norm is None:
            continue
        why = None if _is_trusted(module) else skip(name)
        if why is not None:
            skipped[name] = why
        elif (objection := _objection(module, norm)) is not None:
            odd[name] = objection
        else:
            norms[name] = norm
    for name, module in model.named_modules():
        inside = f"{name}." if name else ""
        is_known = name in norms or name in odd or name in tokens or name in skipped
        if not is_known and _ODD_NORMS.search(type(module).__name__):
            if any(other.startswith(inside) for other in norms):
                continue  # a block that is named after the norm in it
            odd[name] = f"{type(module).__name__} normalizes in a way of its own, which no group norm stands for"
    return Inventory(norms=norms, odd=odd, tokens=frozenset(tokens), skipped=skipped)


def is_token_layer_norm(module: nn.Module) -> bool:
    """LayerNorm over the last dimensions (transformers): not over channels of (N, C, …), so it is left alone."""
    return isinstance(module, nn.LayerNorm) and not _is_channel_layer_norm(module)


def _by_class(module: nn.Module) -> Norm | None:
    """What the class promises; :func:`_objection` tells whether the module keeps to it.

    Nothing is read from a module of another class but what torch itself keeps: attributes may have side effects.
    """
    weight, bias = (name if tensor_of(module, name) is not None else None for name in ("weight", "bias"))
    groups: int | None = None
    after: tuple[str, ...] = _AFTER
    if isinstance(module, nn.GroupNorm):
        after = _AFTER_GROUP_NORM
        channels, groups = module.num_channels, module.num_groups
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        channels = module.num_features
    elif isinstance(module, nn.modules.instancenorm._InstanceNorm):
        channels = groups = module.num_features
    elif _is_frozen_batch_norm(module):
        channels = module._buffers["weight"].numel()  # type: ignore[union-attr]
    elif not _is_channel_layer_norm(module):
        return None
    elif isinstance(module, nn.LayerNorm):
        channels = module.normalized_shape[0]
    else:
        channels = module._parameters["weight"].numel()  # type: ignore[union-attr]
    return Norm(
        kind=type(module).__name__,
        num_channels=int(channels),
        eps=float(getattr(module, "eps", 1e-5)),
        num_groups=groups,
        weight=weight,
        bias=bias,
        after=tuple(name for name in after if isinstance(module._modules.get(name), nn.Module)),
    )


def _objection(module: nn.Module, norm: Norm) -> str | None:
    """Why a layer of a known class is not what its class promises, or None."""
    if not isinstance(module, nn.GroupNorm):  # a group norm stays itself when its number of groups changes
        tensors = {*module._parameters, *module._buffers} - _OWN_TENSORS
        own = sorted(tensors | (set(module._modules) - set(_AFTER)))
        if own:
            return f"{norm.kind} has parameters or layers of its own ({', '.join(own)}), which a group norm would lose"
    return None if _is_trusted(module) else deviation_from_textbook(module, norm)


def _is_trusted(module: nn.Module) -> bool:
    """Torch's own forward is what its documentation says; a lazy layer cannot run yet."""
    return is_lazy(module) or type(module).forward.__module__.startswith(("torch.nn.modules.", "idealgroups."))


def _is_frozen_batch_norm(module: nn.Module) -> bool:
    names = ("weight", "bias", "running_mean", "running_var")
    frozen = any("FrozenBatchNorm" in cls.__name__ for cls in type(module).__mro__)
    return frozen and all(isinstance(module._buffers.get(name), Tensor) for name in names)


def _is_channel_layer_norm(module: nn.Module) -> bool:
    """LayerNorm2d of torchvision and timm, and ConvNeXt's ``data_format="channels_first"``: over C of (N, C, …)."""
    if vars(module).get("data_format") == "channels_first":
        return tensor_of(module, "weight") is not None and "LayerNorm" in type(module).__name__
    if not isinstance(module, nn.LayerNorm) or type(module).forward is nn.LayerNorm.forward:
        return False
    named = any(_CHANNEL_LAYER_NORM.search(cls.__name__) for cls in type(module).__mro__)
    return named and len(module.normalized_shape) == 1


def tensor_of(module: nn.Module, name: str) -> Tensor | None:
    """The parameter or buffer ``name`` as torch keeps it; no attribute is read, which could run somebody's code."""
    value = {**module._buffers, **module._parameters}.get(name)
    return None if isinstance(value, UninitializedBuffer | UninitializedParameter) else value
