"""Finds twins: the averaged, momentum, target or teacher copy of a network inside the model that trains it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..sandbox.supported import has_values
from ..sandbox.walking import named_modules, named_parameters, parameters

_COPY = re.compile(
    r"(^|[._])(ema|teacher|target|momentum|mom|shadow|averaged|swa|offline|frozen|old"
    r"|(encoder|model|net|network|backbone)_(k|key)|key_(encoder|model|net|network|backbone))($|[._])"
)
"""Names that people give to the copy; a mere ``k`` is the key of an attention layer."""


def find_twins(model: nn.Module, norms: Collection[str], ran: Collection[str]) -> dict[str, str]:
    """Return {layer of a copy: the layer it stands for}.

    Two submodules are twins where both have the same classes and shapes all the way down, hold a normalization layer
    and a weight, and either one has the name of a copy (``ema``, ``teacher``, ``target``, ``encoder_k``), or all their
    values are equal, as those of a fresh copy are. Layers of one stack, which differ by a number, are no twins.

    Args:
        model: the model.
        norms: the names of its normalization layers.
        ran: those of them that ran; they stand for those that did not.

    >>> net = nn.ModuleDict({key: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)) for key in ("net", "ema")})
    >>> find_twins(net, ["net.1", "ema.1"], ran=["net.1"])
    {'ema.1': 'net.1'}
    """
    families: dict[Hashable, list[str]] = defaultdict(list)
    modules = named_modules(model)
    parents = {norm[:end] for norm in norms for end, letter in enumerate(norm) if letter == "."}
    outlines = _Outlines()
    kinds = {name: outlines.of(module) for name, module in modules.items() if name in parents}
    often = Counter(kinds.values())
    for name, kind in kinds.items():
        is_alone = often[kind] == 1 and None not in often  # most are, and the structure of a whole network is long
        if not is_alone and _has_weight(modules[name]):
            families[_structure(modules[name])].append(name)
    found: dict[str, str] = {}
    values = cache(lambda name: _Values(modules[name]))
    for family in families.values():
        while len(family) > 1:
            first, *others = family
            twins = [name for name in others if _are_twins(first, name, values)]
            family = [name for name in others if name not in twins]
            _match([first, *twins], norms, ran, found)
    return found


def _match(family: list[str], norms: Collection[str], ran: Collection[str], found: dict[str, str]) -> None:
    """Let the network of ``family`` that is trained stand for the others."""
    inside = {name: [norm for norm in norms if norm.startswith(f"{name}.")] for name in family}
    main = min(family, key=lambda name: (not any(n in ran for n in inside[name]), bool(_COPY.search(name))))
    for name in family:
        for norm in inside[name]:
            twin = main + norm.removeprefix(name)
            if twin != norm and twin in norms and twin not in found and norm not in found.values():
                found.setdefault(norm, twin)


def _are_twins(a: str, b: str, values: Callable[[str], _Values]) -> bool:
    if a.startswith(f"{b}.") or b.startswith(f"{a}."):
        return False
    ours, theirs = a.split("."), b.split(".")
    while ours and theirs and ours[-1] == theirs[-1]:  # what they stand in are twins, then
        ours, theirs = ours[:-1], theirs[:-1]
    if ours and theirs and ours[-1].isdigit() and theirs[-1].isdigit():
        return False
    if bool(_COPY.search(".".join(ours))) != bool(_COPY.search(".".join(theirs))):
        return True
    return values(a).equal(values(b)) and values(a).random


class _Values:
    """The parameters of a module."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters = list(module.parameters())

    @cached_property
    def random(self) -> bool:
        """Whether some are; constants, such as the weights of new norms, say nothing about twins."""
        return any(map(_is_random, self.parameters))

    def equal(self, other: _Values) -> bool:
        """Whether both have the same values, each in tensors of its own."""
        pairs = zip(self.parameters, other.parameters, strict=True)
        return all(p is not q and _equal(p, q) for p, q in pairs)


def _has_weight(module: nn.Module) -> bool:
    parts = named_modules(module).values()
    return any(max(p.shape, default=1) != p.numel() for p in parameters(parts))


class _Outlines:
    """Tells in short what modules are made of: two with the same structure have the same outline.

    Sets, for the structure knows a shared layer or a tied parameter by its first name alone. A module inside itself has
    none.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[type, frozenset[Any]] | None] = {}

    def of(self, module: nn.Module) -> tuple[type, frozenset[Any]] | None:
        """Return the outline of ``module``: its class, and the classes and shapes of all that it holds."""
        if id(module) not in self._known:
            self._known[id(module)] = None  # should one of its children hold it
            children = [self.of(child) for child in module._modules.values() if child is not None]
            if None not in children:
                own: list[Any] = [type(module), *(p.shape for p in module._parameters.values() if p is not None)]
                parts = frozenset(own).union(*(child[1] for child in children if child))
                self._known[id(module)] = type(module), parts
        return self._known[id(module)]


def _structure(module: nn.Module) -> Hashable:
    parts = named_modules(module).items()
    shapes = tuple((name, tuple(parameter.shape)) for name, parameter in named_parameters(parts))
    return tuple((name, type(part)) for name, part in parts), shapes


def _is_random(tensor: Tensor) -> bool:
    return has_values(tensor) and tensor.numel() > 1 and not bool((tensor == tensor.reshape(-1)[:1].reshape(())).all())


def _equal(a: Tensor, b: Tensor) -> bool:
    return has_values(a) and has_values(b) and torch.equal(a, b.to(a.device))
