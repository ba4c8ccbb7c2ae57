"""See what a model does outside its modules: normalization by function call, and dropout by function call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

_NORMS = {
    F.group_norm: "F.group_norm",
    torch.group_norm: "torch.group_norm",
    F.batch_norm: "F.batch_norm",
    torch.batch_norm: "torch.batch_norm",
    F.instance_norm: "F.instance_norm",
    torch.instance_norm: "torch.instance_norm",
}
_DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout)


class FunctionalWatch(TorchFunctionMode):
    """Inside this mode functional dropout is off, and functional norms are noted in ``found``: {module: function}."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._stack: list[tuple[str, nn.Module]] = []
        self._known: frozenset[str] = frozenset()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func in _NORMS and self._stack:
            name, module = self._stack[-1]
            # Weight-standardized layers normalize their weight by F.batch_norm; that is no layer of its own.
            own_weight = isinstance(module, nn.modules.conv._ConvNd | nn.Linear)
            if name not in self._known and not own_weight:
                self.found.setdefault(name or type(module).__name__, _NORMS[func])
        return func(*args, **kwargs)

    @contextmanager
    def stack(self, model: nn.Module, known: frozenset[str]) -> Iterator[None]:
        """Follow which module of ``model`` is running; ``known`` are the norms that are planned anyway."""
        self._known = known
        handles = []
        for name, module in model.named_modules(remove_duplicate=True):
            handles.append(module.register_forward_pre_hook(self._push(name)))
            handles.append(module.register_forward_hook(self._pop, always_call=True))
        try:
            yield
        finally:
            self._stack.clear()
            for handle in handles:
                handle.remove()

    def _push(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._stack.append((name, module))

        return hook

    def _pop(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._stack:
            self._stack.pop()
