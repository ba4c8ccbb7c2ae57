"""Follow one forward pass: which modules run, in which order, and which weight layer feeds which normalization."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from ..errors import internal


@dataclass(frozen=True)
class Running:
    """A module that has begun and not ended, with the positional arguments of its call."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]


class Trace:
    """What is seen of one pass. ``order``: when each module first ran. ``producers``: the weight layer of each norm.

    ``elements``: numbers of elements into and out of each weight layer. A normalization belongs to the weight layer
    whose output it gets; if it gets something else, as in pre-activation order, to the next weight layer that runs.
    """

    def __init__(self) -> None:
        self.order: dict[str, int] = {}
        self.elements: dict[str, tuple[int, int]] = {}
        self.producers: dict[str, str] = {}
        self._running: list[Running] = []
        self._outputs = WeakIdKeyDictionary()
        self._waiting: list[str] = []

    @contextmanager
    def follow(self, model: nn.Module, weight_layers: Iterable[str]) -> Iterator[None]:
        """Watch ``model`` while inside; ``weight_layers`` are the names of the modules that hold a weight."""
        owners = frozenset(weight_layers)
        handles = []
        for name, module in model.named_modules(remove_duplicate=True):
            handles.append(module.register_forward_pre_hook(self._enter(name)))
            handles.append(module.register_forward_hook(self._leave(name, name in owners)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def innermost(self) -> Running | None:
        """The innermost module that is running, or that was when the model raised."""
        return self._running[-1] if self._running else None

    def norm_runs(self, name: str, x: Tensor) -> None:
        """Find the weight layer that the normalization ``name`` with the input ``x`` belongs to."""
        producer = self._outputs.get(x)  # type: ignore[no-untyped-call]
        if producer is not None:
            self.producers.setdefault(name, producer)
        elif name not in self.producers:
            self._waiting.append(name)

    def place(self, owner: str) -> float:
        """Return when ``owner`` ran; one whose parent uses its weight directly ran when the parent did."""
        while owner not in self.order and owner:
            owner = owner.rpartition(".")[0]
        return self.order.get(owner, 0)

    def ratios(self, norms: Iterable[str]) -> Mapping[str, float]:
        """Return elements in / elements out of the weight layer that each norm belongs to; 1 without one."""
        sizes = {name: self.elements.get(self.producers.get(name, ""), (1, 1)) for name in norms}
        return {name: into / out for name, (into, out) in sizes.items()}

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            self.order.setdefault(name, len(self.order))
            self._running.append(Running(name, module, args))

        return hook

    def _leave(self, name: str, has_weight: bool) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            with internal(f"following {name or 'the model'}"):
                # What raised inside and was caught by the model never left.
                while self._running and self._running.pop().module is not module:
                    pass
                if has_weight and args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                    self._weight_ran(name, args[0], output)

        return hook

    def _weight_ran(self, owner: str, x: Tensor, output: Tensor) -> None:
        if not (x.numel() and output.numel()):  # an empty call, as of a detector without proposals
            return
        self.elements.setdefault(owner, (x.numel(), output.numel()))
        self._outputs[output] = owner
        for name in self._waiting:
            self.producers.setdefault(name, owner)
        self._waiting.clear()
