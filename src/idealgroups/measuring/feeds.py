"""Find out in a forward pass which weight layer feeds which normalization layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from ..theory.layer import WeightShape
from .function_calls import unseen


class Feeds:
    """The weight layer of each norm. ``producers``: by the name of the norm.

    ``shapes``: of the input and output of each weight layer. A normalization belongs to the weight layer in front of
    it, unless that belongs to another one or it gets a sum of several: then to the next weight layer that runs. So in
    pre-activation order every norm belongs to the weight layer behind it.
    """

    def __init__(self) -> None:
        self.shapes: dict[str, WeightShape] = {}
        self.producers: dict[str, str] = {}
        self._outputs = WeakIdKeyDictionary()
        self._waiting: dict[str, str | None] = {}

    @contextmanager
    def follow(self, modules: Mapping[str, nn.Module], weight_layers: Iterable[str]) -> Iterator[None]:
        """Watch a model while inside.

        Args:
            modules: the model's, by name.
            weight_layers: names of those that hold a weight.
        """
        handles = [modules[name].register_forward_hook(self._weight_hook(name)) for name in {*weight_layers}]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def norm_runs(self, name: str, x: Tensor) -> None:
        """Find the weight layer that the normalization ``name`` with the input ``x`` belongs to."""
        if name in self.producers or name in self._waiting:
            return
        producer = self._outputs.get(x)  # type: ignore[no-untyped-call]
        if producer is not None and producer not in self.producers.values():
            self.producers[name] = producer
        else:
            self._waiting[name] = producer

    def weights(self, norms: Iterable[str]) -> Mapping[str, WeightShape]:
        """Return the shapes of the weight layer that each norm belongs to; norms without one are left out."""
        owners = {name: owner for name, owner in self._waiting.items() if owner is not None}  # none ran behind them
        owners |= self.producers
        return {name: self.shapes[owners[name]] for name in norms if owners.get(name) in self.shapes}

    def _weight_hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                with unseen(f"following {name or 'the model'}", args[0]):
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
