"""The copy of a model that is measured in place of the user's own, so that nothing of theirs can change.

The copy differs from the model where measuring needs it to: float32 instead of half precision, no dropout, gradients
for every weight, and layers that were initialised to contribute nothing (zero γ, zero convolutions, small LayerScale)
set to where training will soon bring them; otherwise whole branches would show a gradient of zero.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import IdealGroupsError
from ..norms import Inventory, Norm, inventory
from ..sandbox.copying import copy_model
from ..sandbox.supported import has_values, refuse_unsupported
from ..sandbox.walking import buffers, named_modules, named_parameters, parameters

SMALL_SCALE = 0.1
"""A scale that starts at or below this in every channel is a residual branch switched off at initialisation."""

_HALF = (torch.float16, torch.bfloat16)
_DROP = re.compile(r"drop|stochasticdepth", re.IGNORECASE)
_WEIGHT_NAME = re.compile(r"weight|kernel|filter|^[wW]\d*$")
_SCALE_NAME = re.compile(r"gamma|scale|alpha|gain|lambda|resweight|weight", re.IGNORECASE)
_NOT_A_SCALE = re.compile(r"bias|token|embed|position|table|temperature|logit|mean|std", re.IGNORECASE)


_NO_WEIGHTS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.PReLU)


@dataclass(frozen=True)
class Weight:
    """A parameter whose relative gradient is measured; ``owner`` is the module that holds it."""

    name: str
    owner: str
    parameter: nn.Parameter


@dataclass(frozen=True)
class Scratch:
    """``model``: the copy. ``weights``: its weight layers. ``woken``: names of parameters that were switched on.

    ``found``: its normalization layers. ``num_values``: of all parameters, without embeddings and norms.
    """

    model: nn.Module
    weights: tuple[Weight, ...]
    woken: frozenset[str]
    found: Inventory
    num_values: int


def scratch_copy(
    model: nn.Module, seed: int, skip: Callable[[str], str | None] = lambda name: None, *, is_copy: bool = False
) -> Scratch:
    """Copy ``model`` and prepare the copy for measuring; ``skip`` tells which layers are not to be tried, and why.

    With ``is_copy`` the model is itself a copy that may be used up, and is prepared itself.

    Raises:
        IdealGroupsError: the model is wrapped, compiled, lazy or cannot be copied.
    """
    refuse_unsupported(model)
    if any(parameter.is_meta for parameter in parameters(named_modules(model).values())):
        raise IdealGroupsError("the model is on the meta device, without values; build it on a real device to plan it.")
    copy = model if is_copy else copy_model(model)
    modules = named_modules(copy).values()
    for tensor in (*parameters(modules), *buffers(modules)):
        if tensor.dtype in _HALF:
            tensor.data = tensor.data.float()
    for module in modules:
        if _DROP.search(type(module).__name__) and not any(module.children()):
            module.training = False
        for key, value in list(vars(module).items()):
            if isinstance(value, torch.dtype) and value in _HALF:  # models that cast by a dtype of their own
                vars(module)[key] = torch.float32
    found = inventory(copy, skip)
    weights = find_weights(copy, found)
    woken = _wake(copy, weights, found.norms, seed)
    trained = {id(weight.parameter) for weight in weights}
    for parameter in parameters(modules):
        parameter.grad = None
        parameter.requires_grad_(id(parameter) in trained)
    return Scratch(copy, weights, woken, found, count_values(copy, found))


def find_weights(model: nn.Module, found: Inventory | None = None) -> tuple[Weight, ...]:
    """Return every weight layer once: convolutions, linear, recurrent and attention layers.

    Known by the parameter's name: ``weight`` in it, or ``kernel``, ``filters`` and ``w``, as people name their own. A
    parameter of one dimension is one (escnn, e3nn) unless it has a value for each channel of something.

    >>> [w.name for w in find_weights(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)))]
    ['0.weight', '2.weight']
    """
    norms = inventory(model) if found is None else found
    weights: dict[int, Weight] = {}
    flat: dict[int, Weight] = {}
    modules = named_modules(model)
    for owner, module in modules.items():
        if isinstance(module, _NO_WEIGHTS) or owner in norms.norms or owner in norms.tokens:
            continue
        direct = {n: p for n, p in module.named_parameters(recurse=False) if _WEIGHT_NAME.search(n)}
        for name in [name for name in direct if name.endswith("_g") and name[:-1] + "v" in direct]:
            del direct[name]  # weight norm splits W into a direction v, which is the weight layer, and a length g
        for name, parameter in (direct | _parametrized(module)).items():
            weight = Weight(f"{owner}.{name}" if owner else name, owner, parameter)
            if not _is_differentiable(parameter):
                continue
            if max(parameter.shape, default=1) != parameter.numel():
                weights.setdefault(id(parameter), weight)
            elif parameter.ndim >= 2 and owner not in norms.odd:
                weights.setdefault(id(parameter), weight)  # a linear layer of one feature
            elif owner not in norms.odd and _varies(parameter):
                flat.setdefault(id(parameter), weight)
    widths = {size for weight in weights.values() for size in weight.parameter.shape}
    widths |= {norm.num_channels for norm in norms.norms.values()}
    wide = {key: weight for key, weight in flat.items() if weight.parameter.numel() not in widths}
    order = {id(parameter): number for number, parameter in enumerate(parameters(modules.values()))}
    return tuple(sorted((weights | wide).values(), key=lambda weight: order[id(weight.parameter)]))


def count_values(model: nn.Module, found: Inventory) -> int:
    """Return how many values the parameters of ``model`` have, without embeddings and normalization layers."""
    parameters = {
        id(parameter): parameter.numel()
        for owner, module in named_modules(model).items()
        if not isinstance(module, _NO_WEIGHTS) and owner not in found.names
        for parameter in module.parameters(recurse=False)
        if _is_differentiable(parameter)
    }
    return sum(parameters.values())


def _varies(parameter: Tensor) -> bool:
    """Whether the values differ; a tensor without values may."""
    return not has_values(parameter) or not bool((parameter == parameter.reshape(-1)[:1]).all())


def _is_differentiable(parameter: Tensor) -> bool:
    return parameter.is_floating_point() or parameter.is_complex()


def _parametrized(module: nn.Module) -> dict[str, nn.Parameter]:
    """The widest original of every parametrized weight of ``module``."""
    parametrizations = module._modules.get("parametrizations")
    direct = {}
    if isinstance(parametrizations, nn.ModuleDict):
        for tensor_name, parts in parametrizations.items():
            wide = [(f"parametrizations.{tensor_name}.{n}", p) for n, p in parts.named_parameters() if p.ndim >= 2]
            if _WEIGHT_NAME.search(tensor_name) and wide:
                name, parameter = max(wide, key=lambda item: item[1].numel())
                direct[name] = parameter
    return direct


@torch.no_grad()
def _wake(model: nn.Module, weights: tuple[Weight, ...], norms: Mapping[str, Norm], seed: int) -> frozenset[str]:
    """Switch on what was initialised to contribute nothing; return the names of those parameters."""
    woken = set()
    gammas = {}
    modules = named_modules(model)
    slopes = {id(module._parameters.get("weight")) for module in modules.values() if isinstance(module, nn.PReLU)}
    for owner, norm in norms.items():
        if norm.weight is not None:
            gamma = getattr(modules[owner], norm.weight)
            gammas[id(gamma)] = gamma
    layers = {id(weight.parameter) for weight in weights}
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in named_parameters(modules.items()):
        local = name.rsplit(".", 1)[-1]
        if parameter.numel() == 0 or not _is_differentiable(parameter):
            continue
        if id(parameter) in gammas:
            if _is_zero(parameter):
                parameter.fill_(1.0)
                woken.add(name)
        elif id(parameter) in layers:
            if _is_zero(parameter):
                fan_in = max(parameter[0].numel(), 1)
                noise = torch.randn(parameter.shape, generator=generator, device="cpu") * (2 / fan_in) ** 0.5
                parameter.copy_(noise)
                woken.add(name)
        elif id(parameter) not in slopes and _is_idle_scale(local, parameter):
            parameter.fill_(1.0)
            woken.add(name)
    return frozenset(woken)


def _is_zero(parameter: Tensor) -> bool:
    """Whether all values are; the first one tells of nearly all weights, where `any` makes a mask of them."""
    return not parameter[(0,) * parameter.ndim] and not parameter.any()


def _is_idle_scale(name: str, parameter: Tensor) -> bool:
    """LayerScale, ReZero and the like: one small number for all channels."""
    one_axis = max(parameter.shape, default=1) == parameter.numel()
    if not one_axis or not _SCALE_NAME.search(name) or _NOT_A_SCALE.search(name):
        return False
    first = parameter.reshape(-1)[0]
    return bool(first.abs() <= SMALL_SCALE) and bool((parameter == first).all())
