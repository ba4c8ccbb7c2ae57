"""Put a model back to where it was between two passes, so that one pass does not change what the next one measures."""

from __future__ import annotations

from itertools import zip_longest
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from .copying import TORCH_KEEPS
from .functions import containers_of
from .walking import buffers, named_modules, parameters


class Snapshot:
    """Remembers tensors by value, modes, and attributes and the items of lists, dicts and sets by reference.

    Parameters and buffers are put back to what they are in ``source``, the model that this one is a copy of, so that no
    second copy is needed; where they are others there, or without a ``source``, they are remembered by value.

    >>> layer = nn.BatchNorm1d(2)
    >>> snapshot = Snapshot(layer)
    >>> _ = layer(torch.randn(4, 2)); layer.seen = True
    >>> snapshot.restore()
    >>> int(layer.num_batches_tracked), hasattr(layer, "seen")
    (0, False)
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, source: nn.Module | None = None) -> None:
        modules = list(named_modules(model).values())
        self._modules = [_Module(module) for module in modules]
        found = {id(container): container for module in modules for container in containers_of(module)}
        self._containers = [(container, container.copy() if container else ()) for container in found.values()]
        self._flags = [(parameter, parameter.requires_grad) for parameter in parameters(modules)]
        tensors = _tensors(modules)
        originals = _tensors(list(named_modules(source).values())) if source is not None else []
        if len(originals) != len(tensors):
            originals = []
        self._tensors = [_Kept(*pair) for pair in zip_longest(tensors, originals)]

    @torch.no_grad()
    def restore(self) -> None:
        """Undo what the model's passes have changed since."""
        for module in self._modules:
            module.restore()
        for container, items in self._containers:
            if container or items:  # most are empty
                container.clear()
                (container.extend if hasattr(container, "extend") else container.update)(items)
        for kept in self._tensors:
            kept.restore()
        for parameter, requires_grad in self._flags:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)


class _Module:
    """A module's own attributes, its mode, and which tensors it had."""

    __slots__ = ("_buffers", "_keys", "_module", "_parameters", "_values")

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._keys, self._values = [*vars(module)], [*vars(module).values()]
        self._parameters, self._buffers = dict(module._parameters), dict(module._buffers)

    def restore(self) -> None:
        own = vars(self._module)
        if [*own] != self._keys or not all(map(is_, own.values(), self._values)):  # hardly ever
            kept = zip(self._keys, self._values, strict=True)
            before = {key: value for key, value in kept if key == "training" or key not in TORCH_KEEPS}
            for key in [key for key in own if key not in before and key not in TORCH_KEEPS]:
                del own[key]
            own.update(before)
        _refill(own["_parameters"], self._parameters)
        _refill(own["_buffers"], self._buffers)


def _refill(mapping: dict[str, Any], items: dict[str, Any]) -> None:
    """Give ``mapping`` its items back, in their order; most are empty, and stay so."""
    if mapping or items:
        mapping.clear()
        mapping.update(items)


def _tensors(modules: list[nn.Module]) -> list[Tensor]:
    return [*buffers(modules), *parameters(modules)]


class _Kept:
    """A tensor and the values it had, those of ``original`` if it has the same.

    ``data`` holds its memory, should somebody give it another.
    """

    __slots__ = ("_data", "_is_plain", "_memory", "_shape", "_tensor", "_values")

    def __init__(self, tensor: Tensor, original: Tensor | None) -> None:
        self._tensor, self._data, self._shape = tensor, tensor.detach(), tensor.shape
        self._memory = _memory(self._data)
        if original is not None and self._is_copy_of(original):
            self._values = original.detach()
        else:
            self._values = tensor.detach().clone()
        self._is_plain = (tensor.dtype, tensor.device) == (self._values.dtype, self._values.device)

    def _is_copy_of(self, original: Tensor) -> bool:
        is_own = self._memory is None or self._memory != _memory(original)
        values = original.detach()
        return is_own and _same(self._data, values if values.dtype == self._data.dtype else values.to(self._data.dtype))

    def restore(self) -> None:
        if self._has_moved():
            if self._data.shape != self._shape:  # resized in place
                self._data.resize_(self._shape)
            self._tensor.data = self._data
        values = self._values if self._is_plain else self._values.to(self._data.dtype)
        if not _same(self._data, values):
            self._data.copy_(values)

    def _has_moved(self) -> bool:
        tensor = self._tensor
        if tensor.shape != self._shape:
            return True
        if self._memory is None:
            return _memory(tensor) is not None
        try:
            return tensor.data_ptr() != self._memory
        except RuntimeError:  # somebody gave it a memory of another layout
            return True


def _memory(tensor: Tensor) -> int | None:
    return tensor.data_ptr() if tensor.layout == torch.strided and not tensor.is_meta else None


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal in shape and values; what cannot be compared counts as changed."""
    try:
        return torch.equal(a, b)
    except (RuntimeError, NotImplementedError):  # sparse tensors, or on two devices
        return False
