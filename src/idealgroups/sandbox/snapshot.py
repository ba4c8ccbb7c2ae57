"""Put a model back to where it was between two passes, so that one pass does not change what the next one measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from .copying import TORCH_KEEPS
from .functions import containers_of
from .walking import named_buffers, named_modules, named_parameters, parameters

SMALL = 4096
"""Values of a tensor up to which it takes longer to look at than to compare."""


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
        named = named_modules(model)
        modules = list(named.values())
        shared = _Shared()
        self._modules = [_Module(module, shared) for module in modules]
        found = {id(container): container for module in modules for container in containers_of(module)}.values()
        self._empty = [container for container in found if not container]
        self._full = [(container, container.copy()) for container in found if container]
        self._flags = [(parameter, parameter.requires_grad) for parameter in parameters(modules)]
        originals = {} if source is None else dict(_named_tensors(named_modules(source)))
        small: list[tuple[_Kept, Tensor]] = []
        self._large: list[tuple[_Kept, Tensor]] = []
        for name, tensor in _named_tensors(named):
            kept = _Kept(tensor, shared)
            values = kept.values_as_in(originals.get(name))
            (small if kept.is_small(values) else self._large).append((kept, values))
        self._small = _Together(small) if small else None

    @torch.no_grad()
    def restore(self) -> None:
        """Undo what the model's passes have changed since."""
        for module in self._modules:
            module.restore()
        for container in self._empty:
            if container:
                container.clear()
        for container, items in self._full:
            container.clear()
            (container.extend if hasattr(container, "extend") else container.update)(items)
        for kept, values in self._large:
            kept.restore(values)
        if self._small is not None:
            self._small.restore()
        for parameter, requires_grad in self._flags:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)


class _Shared(dict[Any, Any]):
    """Equal tuples, one object for all: most modules have the same attributes, most tensors one of a few shapes."""

    def one(self, value: Any) -> Any:
        """Return the first that is equal to ``value``."""
        try:
            return self.setdefault(value, value)
        except TypeError:  # the shape of a jagged tensor has no hash
            return value


class _Module:
    """A module's own attributes, its mode, and which tensors and modules it had."""

    __slots__ = ("_buffers", "_keys", "_module", "_modules", "_parameters", "_values")

    def __init__(self, module: nn.Module, shared: _Shared) -> None:
        self._module = module
        self._keys, self._values = shared.one((*vars(module),)), (*vars(module).values(),)
        self._parameters, self._buffers = dict(module._parameters) or None, dict(module._buffers) or None
        self._modules = dict(module._modules) or None

    def restore(self) -> None:
        own = vars(self._module)
        if (*own,) != self._keys or not all(map(is_, own.values(), self._values)):  # hardly ever
            kept = zip(self._keys, self._values, strict=True)
            before = {key: value for key, value in kept if key == "training" or key not in TORCH_KEEPS}
            for key in [key for key in own if key not in before and key not in TORCH_KEEPS]:
                del own[key]
            own.update(before)
        _refill(own["_parameters"], self._parameters)
        _refill(own["_buffers"], self._buffers)
        _refill(own["_modules"], self._modules)


def _refill(mapping: dict[str, Any], items: dict[str, Any] | None) -> None:
    """Give ``mapping`` its items back, in their order; most have none, and stay so."""
    if mapping or items:
        mapping.clear()
        mapping.update(items or {})


def _named_tensors(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """Every buffer and parameter once, by its first name: a copy that was converted since lacks some of its model's."""
    yield from named_buffers(modules.items())
    yield from named_parameters(modules.items())


class _Kept:
    """A tensor and where its values were: ``data`` holds its memory, should somebody give it another."""

    __slots__ = ("_layout", "_memory", "_tensor", "data", "shape")

    def __init__(self, tensor: Tensor, shared: _Shared) -> None:
        self._tensor, self.data, self.shape = tensor, tensor.detach(), shared.one(tensor.shape)
        self._memory = _memory(self.data)
        self._layout = None if self._memory is None else shared.one((tensor.dtype, tensor.stride()))

    def values_as_in(self, original: Tensor | None) -> Tensor:
        """Return the values that it has: those of ``original`` if it has the same, so that they are held once."""
        values = None if original is None else original.detach()
        return values if values is not None and self._is_copy_of(values) else self.data.clone()

    def is_small(self, values: Tensor) -> bool:
        """Whether to compare it together with others."""
        data = self.data
        plain = self._is_like(values) and type(data) is Tensor
        plain = plain and data.dtype == torch.float32 and data.device.type == "cpu"
        return plain and self._memory is not None and 0 < data.numel() <= SMALL and data.is_contiguous()

    def _is_copy_of(self, values: Tensor) -> bool:
        is_own = self._memory is None or self._memory != _memory(values)
        return is_own and _same(self.data, values if values.dtype == self.data.dtype else values.to(self.data.dtype))

    def _is_like(self, values: Tensor) -> bool:
        return (self.data.dtype, self.data.device) == (values.dtype, values.device)

    def restore(self, values: Tensor) -> None:
        """Give it the memory that it had, and ``values``."""
        if self.has_moved():
            if self.data.shape != self.shape:  # resized in place
                self.data.resize_(self.shape)
            self._tensor.data = self.data
        values = values if self._is_like(values) else values.to(self.data.dtype)
        if not _same(self.data, values):
            self.data.copy_(values)

    def has_moved(self) -> bool:
        """Whether somebody has given it another memory, or another view of it."""
        tensor = self._tensor
        if tensor.shape != self.shape:
            return True
        if self._memory is None:
            return _memory(tensor) is not None
        try:
            return tensor.data_ptr() != self._memory or (tensor.dtype, tensor.stride()) != self._layout
        except RuntimeError:  # somebody gave it a memory of another layout
            return True


class _Together:
    """Small tensors, which are compared all at once: one by one, each look takes longer than the comparison."""

    def __init__(self, tensors: list[tuple[_Kept, Tensor]]) -> None:
        self._kept = [kept for kept, _ in tensors]
        self._data = [one.data if one.data.dim() == 1 else one.data.view(-1) for one in self._kept]
        self._values = torch.cat([values.reshape(-1) for _, values in tensors])

    def restore(self) -> None:
        if any(one.has_moved() for one in self._kept) or not _same(torch.cat(self._data), self._values):
            parts = torch.split(self._values, [one.shape.numel() for one in self._kept])
            for kept, values in zip(self._kept, parts, strict=True):
                kept.restore(values.view(kept.shape))


def _memory(tensor: Tensor) -> int | None:
    return tensor.data_ptr() if tensor.layout == torch.strided and not tensor.is_meta else None


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal in shape and values; what cannot be compared counts as changed."""
    try:
        return torch.equal(a, b)
    except (RuntimeError, NotImplementedError):  # sparse tensors, or on two devices
        return False
