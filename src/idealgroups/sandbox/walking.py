"""List the modules, parameters and buffers of a model as torch does, in less than half the time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from torch import Tensor, nn

T = TypeVar("T", bound=Tensor)


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return what ``model.named_modules()`` yields: every module once, under its first name, parents first.

    >>> list(named_modules(nn.Sequential(nn.Sequential(nn.ReLU()), nn.Tanh())))
    ['', '0', '0.0', '1']
    """
    found: dict[str, nn.Module] = {}
    _visit("", model, found, set())
    return found


def _visit(name: str, module: nn.Module, found: dict[str, nn.Module], seen: set[int]) -> None:
    if id(module) not in seen:
        seen.add(id(module))
        found[name] = module
        if children := module._modules:
            inside = f"{name}." if name else ""
            for key, child in children.items():
                if child is not None:
                    _visit(inside + key, child, found, seen)


def named_parameters(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield every parameter of the named ``modules`` themselves once, under its first name.

    >>> [name for name, _ in named_parameters(named_modules(nn.Sequential(nn.Linear(2, 2))).items())]
    ['0.weight', '0.bias']
    """
    return _named_once((name, module._parameters) for name, module in modules)


def named_buffers(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, Tensor]]:
    """Yield every buffer of the named ``modules`` themselves once, under its first name."""
    return _named_once((name, module._buffers) for name, module in modules)


def parameters(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Return every parameter of ``modules`` themselves once."""
    return _once(tensor for module in modules for tensor in module._parameters.values())


def buffers(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Return every buffer of ``modules`` themselves once."""
    return _once(tensor for module in modules for tensor in module._buffers.values())


def _named_once(owners: Iterable[tuple[str, Mapping[str, T | None]]]) -> Iterator[tuple[str, T]]:
    seen: set[int] = set()
    for owner, tensors in owners:
        for key, tensor in tensors.items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{owner}.{key}" if owner else key, tensor


def _once(tensors: Iterable[T | None]) -> list[T]:
    return list({id(tensor): tensor for tensor in tensors if tensor is not None}.values())
