"""Put a model back to where it was between two passes, so that one pass does not change what the next one measures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .copying import TORCH_KEEPS, attributes
from .functions import containers_of


class Snapshot:
    """Remembers buffers by value, modes, and attributes and the items of lists, dicts and sets by reference.

    Parameters, which a forward pass may change too, are put back to what they are in ``source``, the model that this
    one is a copy of, so that no second copy is needed; without a ``source`` they are remembered by value.

    >>> layer = nn.BatchNorm1d(2)
    >>> snapshot = Snapshot(layer)
    >>> _ = layer(torch.randn(4, 2)); layer.seen = True
    >>> snapshot.restore()
    >>> int(layer.num_batches_tracked), hasattr(layer, "seen")
    (0, False)
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, source: nn.Module | None = None) -> None:
        modules = list(model.modules())
        self._modes = [(module, module.training) for module in modules]
        self._flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        self._states = [
            (module, dict(attributes(module)), dict(module._parameters), dict(module._buffers)) for module in modules
        ]
        found = {id(container): container for module in modules for container in containers_of(module)}
        self._containers = [(container, container.copy()) for container in found.values()]
        self._tensors = [_Kept(buffer, buffer.clone()) for buffer in model.buffers()]
        originals = list(source.parameters()) if source is not None else []
        parameters = list(model.parameters())
        for number, parameter in enumerate(parameters):
            original = originals[number].detach() if len(originals) == len(parameters) else None
            is_same = original is not None and _same(parameter, original.to(parameter.dtype))
            self._tensors.append(_Kept(parameter, original if is_same else parameter.detach().clone()))

    @torch.no_grad()
    def restore(self) -> None:
        """Undo what the model's passes have changed since."""
        for module, before, parameters, buffers in self._states:
            own = vars(module)
            for key in [key for key in own if key not in before and key not in TORCH_KEEPS]:
                del own[key]
            own.update(before)
            _refill(module._parameters, parameters)
            _refill(module._buffers, buffers)
        for container, items in self._containers:
            if container or items:  # most are empty
                container.clear()
                (container.extend if hasattr(container, "extend") else container.update)(items)
        for kept in self._tensors:
            kept.restore()
        for module, training in self._modes:
            module.training = training
        for parameter, requires_grad in self._flags:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)


def _refill(mapping: dict[str, Any], items: dict[str, Any]) -> None:
    """Give ``mapping`` its items back, in their order; most are empty, and stay so."""
    if mapping or items:
        mapping.clear()
        mapping.update(items)


class _Kept:
    """A tensor and the values it had. ``data`` holds its memory, should somebody give it another."""

    def __init__(self, tensor: Tensor, values: Tensor | None) -> None:
        self._tensor, self._data, self._values = tensor, tensor.detach(), values
        self._shape = tensor.shape
        self._is_plain = values is not None and (tensor.dtype, tensor.device) == (values.dtype, values.device)

    def restore(self) -> None:
        if _memory(self._tensor) != _memory(self._data) or self._tensor.shape != self._shape:
            if self._data.shape != self._shape:  # resized in place
                self._data.resize_(self._shape)
            self._tensor.data = self._data
        values = self._values
        if values is not None and not _same(self._data, values if self._is_plain else values.to(self._data.dtype)):
            self._data.copy_(values)


def _memory(tensor: Tensor) -> int | None:
    return tensor.data_ptr() if tensor.layout == torch.strided and not tensor.is_meta else None


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal in shape and values; what cannot be compared counts as changed."""
    try:
        return torch.equal(a, b if a.device == b.device else b.to(a.device))
    except (RuntimeError, NotImplementedError):  # sparse tensors
        return False
