"""Follow one forward pass: which modules run, in which order, and which weight layer feeds which normalization."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.weak import WeakIdKeyDictionary

from ..errors import internal
from ..theory.layer import WeightShape


@dataclass(frozen=True)
class Running:
    """A module that has begun and not ended, with the positional arguments of its call."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]


class Trace:
    """What is seen of one pass. ``order``: when each module first ran. ``producers``: the weight layer of each norm.

    ``shapes``: of the input and output of each weight layer. A normalization belongs to the weight layer in front of
    it, unless that belongs to another one or it gets a sum of several: then to the next weight layer that runs. So in
    pre-activation order every norm belongs to the weight layer behind it.
    """

    def __init__(self) -> None:
        self.order: dict[str, int] = {}
        self.shapes: dict[str, WeightShape] = {}
        self.producers: dict[str, str] = {}
        self._running: list[tuple[str, nn.Module, tuple[Any, ...]]] = []
        self._outputs = WeakIdKeyDictionary()
        self._waiting: dict[str, str | None] = {}

    @contextmanager
    def follow(
        self, model: nn.Module, weight_layers: Iterable[str], on_stranger: Callable[[nn.Module], None] | None = None
    ) -> Iterator[None]:
        """Watch ``model`` while inside.

        Args:
            model: the model.
            weight_layers: names of the modules that hold a weight.
            on_stranger: called with every module that runs and is none of the model's.
        """
        modules = dict(model.named_modules(remove_duplicate=True))
        names = {id(module): name for name, module in modules.items()}
        handles = [modules[name].register_forward_hook(self._weight_hook(name)) for name in {*weight_layers}]
        # Hooks for all modules at once: one for each would have to be put on and taken off in every pass.
        handles.append(register_module_forward_pre_hook(self._enter(names, on_stranger)))
        handles.append(register_module_forward_hook(self._leave(names)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def innermost(self) -> Running | None:
        """The innermost module that is running, or that was when the model raised."""
        return Running(*self._running[-1]) if self._running else None

    def norm_runs(self, name: str, x: Tensor) -> None:
        """Find the weight layer that the normalization ``name`` with the input ``x`` belongs to."""
        if name in self.producers or name in self._waiting:
            return
        producer = self._outputs.get(x)  # type: ignore[no-untyped-call]
        if producer is not None and producer not in self.producers.values():
            self.producers[name] = producer
        else:
            self._waiting[name] = producer

    def place(self, owner: str) -> float:
        """Return when ``owner`` ran; one whose parent uses its weight directly ran when the parent did."""
        while owner not in self.order and owner:
            owner = owner.rpartition(".")[0]
        return self.order.get(owner, 0)

    def weights(self, norms: Iterable[str]) -> Mapping[str, WeightShape]:
        """Return the shapes of the weight layer that each norm belongs to; norms without one are left out."""
        owners = {name: owner for name, owner in self._waiting.items() if owner is not None}  # none ran behind them
        owners |= self.producers
        return {name: self.shapes[owners[name]] for name in norms if owners.get(name) in self.shapes}

    def _enter(
        self, names: Mapping[int, str], on_stranger: Callable[[nn.Module], None] | None
    ) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            name = names.get(id(module))
            if name is not None:
                self.order.setdefault(name, len(self.order))
                self._running.append((name, module, args))
            elif on_stranger is not None:
                on_stranger(module)

        return hook

    def _leave(self, names: Mapping[int, str]) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            # What raised inside and was caught by the model never left.
            while id(module) in names and self._running and self._running.pop()[1] is not module:
                pass

        return hook

    def _weight_hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                with internal(f"following {name or 'the model'}"):
                    self._weight_ran(name, module, args[0], output)

        return hook

    def _weight_ran(self, owner: str, module: nn.Module, x: Tensor, output: Tensor) -> None:
        if not (x.numel() and output.numel()):  # an empty call, as of a detector without proposals
            return
        self.shapes.setdefault(owner, _weight_shape(x, output, last=isinstance(module, nn.Linear)))
        self._outputs[output] = owner
        for name in self._waiting:
            self.producers.setdefault(name, owner)
        self._waiting.clear()


def _weight_shape(x: Tensor, y: Tensor, last: bool) -> WeightShape:
    """Return channels and positions in and out: of (N, C, …), or of (N, …, C) if the ``last`` axis is mapped."""
    if last and x.ndim > 2 and y.ndim > 2:
        x, y = x.movedim(-1, 1), y.movedim(-1, 1)
    batch = x.shape[0] if x.ndim else 1
    into, out = (t.shape[1] if t.ndim > 1 else 1 for t in (x, y))
    return WeightShape(
        in_channels=into,
        out_channels=out,
        in_positions=max(x.numel() // (batch * into), 1),
        out_positions=max(y.numel() // (batch * out), 1),
    )
