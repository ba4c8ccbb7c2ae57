"""Which modules normalize over channels. The one place that knows other people's classes.

A layer is recognised by its base class where it has one in torch, otherwise by what it does. Whatever has a forward of
its own is tried on small inputs: a hidden activation must not get lost.
"""

from __future__ import annotations

import copyreg
import re
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import UninitializedBuffer, UninitializedParameter

from ..sandbox.copying import attributes
from ..sandbox.supported import has_values, is_lazy
from ..sandbox.walking import named_modules
from .behavior import Odd, identify
from .norm import Inventory, Norm
from .purpose import split_pairs
from .textbook import deviation_from_textbook

_ODD_NORMS = re.compile(
    r"Norm\w*[123]d|EvoNorm|FilterResponse|InplaceAbn|AdaGroupNorm|SpatialNorm|GroupNorm|BatchNorm|InstanceNorm"
    r"|ChannelNorm|GraphNorm|PairNorm|(Glob|Chan|Cum)\w*(LayerNorm|LN)$"  # the last: speech separation networks
)
_AFTER = ("drop", "act")
_AFTER_GROUP_NORM = (*_AFTER, "activation")  # the layer itself stays when its number of groups changes
_PLAIN = (int, float, bool, str, type(None))
_MANY = 4096
"""Integers up to which a tensor may decide what a layer does; more are a table."""
_slot_names = copyreg._slotnames  # type: ignore[attr-defined]
_WIDTHS = {"num_features", "num_channels"}
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
    tokens: set[str] = set()
    tried: dict[Hashable, Norm | Odd | None] = {}
    unknown = []
    for name, module in named_modules(model).items():
        norm = _by_class(module)
        if is_trusted(module):
            found: Norm | Odd | None = norm if norm is None else _checked(module, norm)
        elif not _may_normalize(module, norm):
            found = None
        elif (why := skip(name)) is not None:
            skipped[name] = why
            continue
        else:
            found = _try_once(module, norm, tried)
        if isinstance(found, Norm):
            norms[name] = found
        elif _is_last(module, found):
            tokens.add(name)
        elif found is not None:
            odd[name] = found.why
        else:
            unknown.append((name, module))
    for name, why in split_pairs(model, norms).items():
        del norms[name]
        odd[name] = why
    for name, module in unknown:
        if _ODD_NORMS.search(type(module).__name__) and skip(name) is None:
            inside = f"{name}." if name else ""
            # Otherwise it is a block that is named after the norm in it.
            if not any(other.startswith(inside) for other in (*norms, *odd)):
                odd[name] = f"{type(module).__name__} normalizes in a way of its own, which no group norm stands for"
    return Inventory(norms=norms, odd=odd, tokens=frozenset(tokens), skipped=skipped)


def tensor_of(module: nn.Module, name: str) -> Tensor | None:
    """The parameter or buffer ``name`` as torch keeps it; no attribute is read, which could run somebody's code."""
    value = {**module._buffers, **module._parameters}.get(name)
    return None if isinstance(value, UninitializedBuffer | UninitializedParameter) else value


def _is_last(module: nn.Module, found: Norm | Odd | None) -> bool:
    """Whether the last dimension is normalized, as in transformers; a layer norm does so where nothing else is seen."""
    return found.last if isinstance(found, Odd) else found is None and isinstance(module, nn.LayerNorm)


def _by_class(module: nn.Module) -> Norm | None:
    """What the class promises; :func:`_checked` tells whether the module keeps to it.

    Nothing is read from a module of another class but what torch itself keeps: attributes may have side effects.
    """
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
    else:
        return None
    weight, bias = (name if tensor_of(module, name) is not None else None for name in ("weight", "bias"))
    return Norm(
        kind=type(module).__name__,
        num_channels=int(channels),
        eps=float(getattr(module, "eps", 1e-5)),
        num_groups=groups,
        weight=weight,
        bias=bias,
        after=tuple(name for name in after if isinstance(module._modules.get(name), nn.Module)),
        over_batch=isinstance(module, nn.modules.batchnorm._BatchNorm),
    )


def _is_frozen_batch_norm(module: nn.Module) -> bool:
    names = ("weight", "bias", "running_mean", "running_var")
    frozen = any("FrozenBatchNorm" in cls.__name__ for cls in type(module).__mro__)
    return frozen and all(isinstance(module._buffers.get(name), Tensor) for name in names)


def is_trusted(module: nn.Module) -> bool:
    """Torch's own forward is what its documentation says; a lazy layer cannot run yet."""
    return is_lazy(module) or (type(module).forward.__module__ or "").startswith(("torch.nn.modules.", "idealgroups."))


def _may_normalize(module: nn.Module, norm: Norm | None) -> bool:
    """Whether to try the module: a known class, or one without children but what it applies to its output."""
    return norm is not None or set(module._modules) <= set(_AFTER)


def _try_once(module: nn.Module, norm: Norm | None, tried: dict[Hashable, Norm | Odd | None]) -> Norm | Odd | None:
    """Try the module, or remember what another did that differs from it in the values of its weights only.

    Where that other one was what its class promises, and this one differs from it in its width, too, one input is
    enough. What a layer does is compared once more where it runs in the model (:func:`.agreement.disagreement`).
    """
    key = _alike(module)
    if key is None:
        return _try(module, norm)
    if key in tried:
        return tried[key]
    of_any_width = None if norm is None else _alike(module, norm.num_channels)
    if norm is not None and of_any_width in tried and deviation_from_textbook(module, norm, briefly=True) is None:
        found: Norm | Odd | None = norm
    else:
        found = _try(module, norm)
    tried[key] = found
    if norm is not None and found is norm:
        tried[of_any_width] = norm
    return found


def _try(module: nn.Module, norm: Norm | None) -> Norm | Odd | None:
    found = None if norm is None else _checked(module, norm)
    if isinstance(found, Norm):
        return found
    seen = identify(module, tuple(name for name in _AFTER if name in module._modules))
    if found is not None and not (isinstance(seen, Norm) and not seen.over_batch):
        return found  # an instance norm over the nodes of a graph is no batch norm
    return seen


def _checked(module: nn.Module, norm: Norm) -> Norm | Odd:
    """``norm``, or why the layer is not what its class promises."""
    if not isinstance(module, nn.GroupNorm):  # a group norm stays itself when its number of groups changes
        tensors = {*module._parameters, *module._buffers} - _OWN_TENSORS
        own = sorted(tensors | (set(module._modules) - set(_AFTER)))
        if own:
            listed = ", ".join(own)
            return Odd(f"{norm.kind} has parameters or layers of its own ({listed}), which a group norm would lose")
    why = None if is_trusted(module) else deviation_from_textbook(module, norm)
    return norm if why is None else Odd(why)


def _alike(module: nn.Module, width: int | None = None) -> Hashable | None:
    """What decides how a layer acts, without the values of its weights; None where it keeps more than plain values.

    With ``width``, the number of its channels, layers that differ in that number alone are alike. One channel is apart:
    there, normalizing the last dimension cannot be told from normalizing channels.
    """
    parts: list[Hashable] = [width == 1] if width else []
    for part in named_modules(module).values():
        plain = dict(attributes(part))
        if not all(map(_is_plain, plain.values())) or _slot_names(type(part)):
            return None
        if width and part is module:
            plain = {key: value for key, value in plain.items() if key not in _WIDTHS}
        tensors = {**part._parameters, **part._buffers}
        shapes = tuple((name, None if t is None else _kind(t, width)) for name, t in tensors.items())
        parts.append((type(part), part.training, repr(sorted(plain.items())), shapes, *part._modules))
    return tuple(parts)


def _is_plain(value: Any) -> bool:
    """Whether ``repr`` tells all of ``value``: a number, a word, a member of an enumeration, or a tuple of them."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, Enum) or (isinstance(value, _PLAIN) and not hasattr(value, "__dict__"))


def _kind(tensor: Tensor, width: int | None) -> Hashable:
    """What a tensor is but for its values, and for its size where that is ``width``; switches and settings with them.

    These are integers (a switch, a counter, an order), and single numbers that are not trained (ε).
    """
    shape = () if width and tensor.shape == (width,) else tuple(tensor.shape)
    values = str(tensor.tolist()) if _is_setting(tensor) and has_values(tensor) else ""
    return type(tensor), shape, tensor.ndim, tensor.dtype, tensor.device.type, tensor.requires_grad, values


def _is_setting(tensor: Tensor) -> bool:
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout is not torch.strided or tensor.is_quantized:
        return False
    if tensor.is_floating_point() or tensor.is_complex():
        return tensor.numel() == 1 and type(tensor) is Tensor
    return tensor.numel() <= _MANY
