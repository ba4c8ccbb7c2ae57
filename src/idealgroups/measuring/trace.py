"""Follow one forward pass: which modules run, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


@dataclass(frozen=True)
class Running:
    """A module that has begun and not ended, with the positional arguments of its call."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]


class Trace:
    """What is seen of one pass. ``order``: when each module first ran."""

    def __init__(self) -> None:
        self.order: dict[str, int] = {}
        self._running: list[tuple[str, nn.Module, tuple[Any, ...]]] = []

    @contextmanager
    def follow(self, modules: Mapping[str, nn.Module], on_stranger: Callable[[nn.Module], None]) -> Iterator[None]:
        """Watch a model while inside.

        Args:
            modules: the model's, by name.
            on_stranger: called with every module that runs and is none of the model's.
        """
        names = {id(module): name for name, module in modules.items()}
        # Hooks for all modules at once: one for each would have to be put on and taken off in every pass.
        handles = [
            register_module_forward_pre_hook(self._enter(names, on_stranger)),
            register_module_forward_hook(self._leave(names)),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def innermost(self) -> Running | None:
        """The innermost module that is running, or that was when the model raised."""
        return Running(*self._running[-1]) if self._running else None

    def place(self, owner: str) -> float:
        """Return when ``owner`` ran; one whose parent uses its weight directly ran when the parent did."""
        while owner not in self.order and owner:
            owner = owner.rpartition(".")[0]
        return self.order.get(owner, 0)

    def _enter(
        self, names: Mapping[int, str], on_stranger: Callable[[nn.Module], None]
    ) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            name = names.get(id(module))
            if name is not None:
                self.order.setdefault(name, len(self.order))
                self._running.append((name, module, args))
            else:
                on_stranger(module)

        return hook

    def _leave(self, names: Mapping[int, str]) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            # What raised inside and was caught by the model never left.
            while id(module) in names and self._running and self._running.pop()[1] is not module:
                pass

        return hook
