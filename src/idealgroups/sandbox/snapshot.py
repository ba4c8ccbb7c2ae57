"""Put a model back to where it was between two passes, so that one pass does not change what the next one measures."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .copying import attributes


class Snapshot:
    """Buffers by value; attributes (a step count, a hidden state, a cache) and what lists and dicts hold by reference.

    >>> layer = nn.BatchNorm1d(2)
    >>> snapshot = Snapshot(layer)
    >>> _ = layer(torch.randn(4, 2)); layer.seen = True
    >>> snapshot.restore()
    >>> int(layer.num_batches_tracked), hasattr(layer, "seen")
    (0, False)
    """

    def __init__(self, model: nn.Module) -> None:
        self._states = [
            (
                module,
                {key: (value, _contents(value)) for key, value in attributes(module)},
                {key: None if value is None else (value, value.clone()) for key, value in module._buffers.items()},
            )
            for module in model.modules()
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Undo what the model's passes have changed since."""
        for module, before, buffers in self._states:
            for key in [key for key, _ in attributes(module) if key not in before]:
                del vars(module)[key]
            for key, (value, contents) in before.items():
                _refill(value, contents)
                vars(module)[key] = value
            for key, kept in buffers.items():
                module._buffers[key] = None if kept is None else kept[0].copy_(kept[1])


def _contents(value: Any) -> Any:
    return value.copy() if type(value) in (list, dict, set) else None


def _refill(value: Any, contents: Any) -> None:
    """In place: several modules may hold the same list."""
    if contents is None:
        return
    value.clear()
    (value.extend if isinstance(value, list) else value.update)(contents)
