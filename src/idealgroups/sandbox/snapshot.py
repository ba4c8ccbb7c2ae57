"""Put a model back to where it was between two passes, so that one pass does not change what the next one measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import is_
from typing import Any, NamedTuple

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
        self._trained = [parameter for parameter in parameters(modules) if parameter.requires_grad]
        self._frozen = [parameter for parameter in parameters(modules) if not parameter.requires_grad]
        originals = {} if source is None else dict(_named_tensors(named_modules(source)))
        self._small: list[_Kept] = []
        self._large: list[_Kept] = []
        for name, tensor in _named_tensors(named):
            kept = _Kept(tensor, originals.get(name), shared)
            (self._small if kept.is_small() else self._large).append(kept)

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
        for kept in self._large if _unchanged(self._small) else [*self._large, *self._small]:
            kept.restore()
        for some, requires_grad in ((self._trained, True), (self._frozen, False)):
            for parameter in some:
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

    __slots__ = ("_attributes", "_buffers", "_keys", "_module", "_modules", "_parameters", "_values")

    def __init__(self, module: nn.Module, shared: _Shared) -> None:
        own = vars(module)
        self._module = module
        self._keys = shared.one((*own,))
        self._attributes = shared.one((*(key for key in own if key == "training" or key not in TORCH_KEEPS),))
        self._values = (*map(own.__getitem__, self._attributes),)
        self._parameters = _Items.of(module._parameters, shared)
        self._buffers = _Items.of(module._buffers, shared)
        self._modules = _Items.of(module._modules, shared)

    def restore(self) -> None:
        own = vars(self._module)
        if (*own,) != self._keys or not all(map(is_, map(own.__getitem__, self._attributes), self._values)):
            for key in [key for key in own if key not in self._attributes and key not in TORCH_KEEPS]:  # hardly ever
                del own[key]
            own.update(zip(self._attributes, self._values, strict=True))
        _refill(own["_parameters"], self._parameters)
        _refill(own["_buffers"], self._buffers)
        _refill(own["_modules"], self._modules)


class _Items(NamedTuple):
    """What a dictionary held, in less memory than another dictionary."""

    keys: tuple[str, ...]
    values: tuple[Any, ...]

    @classmethod
    def of(cls, mapping: Mapping[str, Any], shared: _Shared) -> _Items | None:
        """Return the items of ``mapping``; None if it has none, as most."""
        return cls(shared.one((*mapping,)), (*mapping.values(),)) if mapping else None


def _refill(mapping: dict[str, Any], items: _Items | None) -> None:
    """Give ``mapping`` its items back, in their order; most have none, and stay so."""
    if mapping or items:
        mapping.clear()
        if items:
            mapping.update(zip(items.keys, items.values, strict=True))


def _named_tensors(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """Every buffer and parameter once, by its first name: a copy that was converted since lacks some of its model's."""
    yield from named_buffers(modules.items())
    yield from named_parameters(modules.items())


class _Kept:
    """A tensor and where its values were: ``_held`` holds its memory, should somebody give it another.

    ``values`` has its values: the ``original`` if it has the same, so that they are held once, else a copy.
    """

    __slots__ = ("_held", "_layout", "_memory", "_offset", "_shape", "tensor", "values")

    def __init__(self, tensor: Tensor, original: Tensor | None, shared: _Shared) -> None:
        self.tensor, self._shape = tensor, shared.one(tensor.shape)
        data = tensor.detach()
        self._memory = _memory(data)
        is_plain = self._memory is not None and type(data) is Tensor and not (data.is_conj() or data.is_neg())
        self._layout: Any = None if self._memory is None else shared.one((tensor.dtype, tensor.stride()))
        is_plain = is_plain and not data.is_quantized
        self._held: Any = data.untyped_storage() if is_plain else data
        self._offset = data.storage_offset() if is_plain else 0

        self.values = original if original is not None and self._is_copy(data, original.detach()) else data.clone()

    def is_small(self) -> bool:
        """Whether to compare it together with others."""
        data = self.tensor.detach()
        plain = _are_alike(data, self.values) and type(data) is Tensor
        plain = plain and data.dtype == torch.float32 and data.device.type == "cpu"
        return plain and self._memory is not None and 0 < data.numel() <= SMALL and data.is_contiguous()

    def _is_copy(self, data: Tensor, values: Tensor) -> bool:
        is_own = self._memory is None or self._memory != _memory(values)
        return is_own and _same(data, values if values.dtype == data.dtype else values.to(data.dtype))

    def restore(self) -> None:
        """Give it the memory and the values that it had."""
        if self.has_moved():
            self.tensor.data = self._data()
        data, values = self.tensor.detach(), self.values.detach()
        values = values if _are_alike(data, values) else values.to(data.dtype)
        if not _same(data, values):
            data.copy_(values)

    def _data(self) -> Tensor:
        if isinstance(self._held, Tensor):
            if self._held.shape != self._shape:  # resized in place
                self._held.resize_(self._shape)
            return self._held
        dtype, strides = self._layout
        return torch.empty(0, dtype=dtype, device=self._held.device).set_(
            self._held, self._offset, self._shape, strides
        )

    def has_moved(self) -> bool:
        """Whether somebody has given it another memory, or another view of it."""
        tensor = self.tensor
        if tensor.shape != self._shape:
            return True
        if self._memory is None:
            return _memory(tensor) is not None
        try:
            return tensor.data_ptr() != self._memory or (tensor.dtype, tensor.stride()) != self._layout
        except RuntimeError:  # somebody gave it a memory of another layout
            return True


def _unchanged(small: list[_Kept]) -> bool:
    """Compare small tensors all at once: one by one, each look takes longer than the comparison."""
    if any(kept.has_moved() for kept in small):
        return False
    now, before = [_flat(kept.tensor) for kept in small], [_flat(kept.values) for kept in small]
    return not small or _same(torch.cat(now), torch.cat(before))


def _flat(tensor: Tensor) -> Tensor:
    return tensor if tensor.dim() == 1 else tensor.reshape(-1)


def _are_alike(one: Tensor, other: Tensor) -> bool:
    return (one.dtype, one.device) == (other.dtype, other.device)


def _memory(tensor: Tensor) -> int | None:
    return tensor.data_ptr() if tensor.layout == torch.strided and not tensor.is_meta else None


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal in shape and values; what cannot be compared counts as changed."""
    try:
        return torch.equal(a, b)
    except (RuntimeError, NotImplementedError):  # sparse tensors, or on two devices
        return False
