"""Run one forward and one backward pass of a copy with given numbers of groups, and return what was seen."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import IdealGroupsError, InternalError, internal, is_out_of_memory, one_line
from ..norms import Inventory, Norm
from ..records import WeightGradient
from ..sandbox.calling import call_model, copy_inputs, describe
from ..sandbox.generators import check_seed, sandbox
from ..sandbox.order import lengths, loses_order
from ..sandbox.snapshot import Snapshot
from ..sandbox.tree import is_at_rest, tensors
from ..sandbox.walking import named_modules
from .backward import norm, numbers, squares_at_once, squares_at_the_end
from .diagnosis import refuse_empty_inputs, value_range, what_the_model_raised
from .feeds import Feeds
from .function_calls import FunctionalNorms, NoDropout
from .graph import has_reentrant_checkpoint, leaves, movable, nodes_behind
from .loss import Loss, random_projection
from .moments import curves_of_calls
from .observation import Observation, Optimizer, Structure, check_optimizer
from .prepare import Scratch, Weight, scratch_copy
from .regroup import Calls, regrouped
from .trace import Trace


@dataclass
class _Pass:
    """What one pass collects. ``in_line``: ids of the parameters that planned norms lie behind.

    ``hidden``: whether a checkpoint hides a part of the graph. ``output``: the shape of what the model returned.
    ``lengths``: of the axes of that.
    ``like``: a pass in which the modules ran as they will in this one; where it is given, they are not followed again.
    """

    calls: Calls
    trace: Trace = field(default_factory=Trace)
    squares: Mapping[str, float] = field(default_factory=dict)
    in_line: frozenset[int] = frozenset()
    hidden: bool = False
    output: str = ""
    lengths: frozenset[int] = frozenset()
    like: _Pass | None = None

    @classmethod
    def repeating(cls, first: _Pass, groups: Mapping[str, int], with_curves: bool) -> _Pass:
        """Return a pass that will run like ``first``."""
        calls = Calls(groups, with_curves, known=True, differentiated=set(first.calls.differentiated))
        return cls(calls, first.trace, like=first)

    def went_alike(self) -> bool:
        """Return whether the same norms ran as in ``like``, and the same weights got gradients, in the same order."""
        first = self.like
        return first is not None and self._order() == first._order()

    def _order(self) -> tuple[list[str], list[str]]:
        return [*self.calls.positions], [*self.squares]  # the last weight to run gets its gradient first


class Observer:
    """A copy of a model with its inputs and loss, ready to be observed with any numbers of groups.

    Args:
        model: the model; only a copy of it runs.
        example_inputs: what the model takes: a tensor, a tuple (positional) or a mapping (keywords).
        loss: the model's output → a scalar; default: random projections of all outputs.
        seed: of the random projections and of whatever the model draws.
        optimizer: whose steps the line of an observation is about.
        skip: a layer's name → why it is not to be planned, or None; :func:`~idealgroups.norms.inventory` says more.
        copy_of: the model of which ``model`` is a copy that may be used up; then no other copy is made.
        projections: how many random projections are averaged if there is no loss; each costs a backward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        loss: Loss | None = None,
        seed: int = 0,
        optimizer: Optimizer = "sgd",
        skip: Callable[[str], str | None] = lambda name: None,
        copy_of: nn.Module | None = None,
        projections: int = 1,
    ) -> None:
        check_seed(seed)
        check_optimizer(optimizer)
        source = model if copy_of is None else copy_of
        with torch.inference_mode(False):  # outside of it, tensors of inference mode become ordinary ones
            self._scratch: Scratch = scratch_copy(model, seed, skip, is_copy=copy_of is not None)
            # Each pass gets a copy. What may be another thing each time it is looked at is looked at once.
            self._inputs = example_inputs if is_at_rest(example_inputs) else copy_inputs(example_inputs)
        refuse_empty_inputs(self._inputs)
        self._originals = frozenset(map(id, named_modules(source).values()))
        self._losses = (loss,) if loss else tuple(random_projection(seed, index) for index in range(projections))
        self._seed = seed
        self._skip = skip
        self._optimizer: Optimizer = optimizer
        self._device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        self._weights: tuple[Weight, ...] = tuple(w for w in self._scratch.weights if _is_trainable(w.parameter))
        if not self._weights:
            raise IdealGroupsError(
                "the model has no weight layers (parameters named weight, kernel or w) that gradients reach."
            )
        sizes = numbers([norm(weight.parameter.detach()) for weight in self._weights])
        self._sizes = {weight.name: size for weight, size in zip(self._weights, sizes, strict=True)}
        self._snapshot = Snapshot(self.model, source)
        self._modules = named_modules(self.model)  # the snapshot keeps them
        self._has_dropout = True  # until the survey tells
        self._surveyed: _Pass | None = None

    def close(self) -> None:
        """Free the memory of the copy at once."""
        del self._snapshot, self._scratch, self._weights, self._modules

    @property
    def model(self) -> nn.Module:
        """The copy."""
        return self._scratch.model

    @property
    def found(self) -> Inventory:
        """The normalization layers of the copy."""
        return self._scratch.found

    @property
    def norms(self) -> Mapping[str, Norm]:
        """The layers of :attr:`found` that a group norm can stand for."""
        return self.found.norms

    @property
    def weights(self) -> tuple[Weight, ...]:
        """The weight layers of the copy."""
        return self._weights

    @property
    def sizes(self) -> frozenset[int]:
        """The sizes of the first axes of the example inputs."""
        return frozenset(len(tensor) for tensor in tensors(self._inputs) if tensor.ndim)

    @property
    def num_values(self) -> int:
        """How many values the parameters have, without embeddings and norms: what weights should be most of."""
        return self._scratch.num_values

    @property
    def woken(self) -> frozenset[str]:
        """Names of parameters that were initialised to contribute nothing and are measured switched on."""
        return self._scratch.woken

    def survey(self) -> tuple[Structure, Observation]:
        """Run the model as it is; return which norms run, on how many positions, and which weights feed them."""
        trace, feeds = Trace(), Feeds()
        functional = FunctionalNorms(trace, self.norms)
        seen = self._surveyed = self._run(_Pass(Calls({}, False), trace), functional, feeds)
        self._has_dropout = functional.used
        calls = {name: counts for name, counts in seen.calls.positions.items() if name not in seen.calls.odd}
        survey = Structure(
            positions={name: min(counts) for name, counts in calls.items()},
            samples=seen.calls.samples,
            flat=frozenset(name for name, counts in calls.items() if max(counts) == 1),
            weights=feeds.weights(calls),
            functional=functional.found,
            silent_norms=tuple(name for name in self.norms if name not in calls and name not in seen.calls.odd),
            odd=seen.calls.odd,
            output=seen.output,
        )
        return survey, self._observation(seen)

    def loses_order(self) -> int | None:
        """Return an axis of the inputs along which the model is causal, and is not with group norms; most have none.

        In evaluation mode, for in training batch norm sees all positions, too. Call it after :meth:`survey`.
        """
        seen = self._surveyed
        if seen is None or not lengths(self._inputs) & seen.lengths:
            return None
        ran = seen.calls.positions.items()
        if any(self.norms[name].num_groups is not None and max(counts) > 1 for name, counts in ran):
            return None  # one that sees all positions is there already
        groups = dict.fromkeys((name for name in seen.calls.positions if self._planned(name)), 1)

        def run(inputs: Any, calls: Calls | None = None) -> Any:
            for module in self._modules.values():
                module.training = False
            exchanged = regrouped(self._modules, self.norms, calls, None) if calls else nullcontext()
            quiet = redirect_stdout(sys.stderr)
            with self._nothing_left(), sandbox(self._seed, self._device), quiet, torch.no_grad(), exchanged:
                return call_model(self.model, inputs)

        with internal("asking whether the model is causal"):
            return loses_order(run, lambda inputs: run(inputs, Calls(groups, False)), self._inputs)

    def functional_norms(self) -> Mapping[str, str]:
        """Return which modules normalize by calling a function; none where the model cannot run on these inputs."""
        try:
            return self.survey()[0].functional
        except InternalError:
            raise
        except IdealGroupsError:
            return {}

    def observe(self, groups: Mapping[str, int] | None, with_curves: bool = False) -> Observation:
        """Run one forward and one backward pass with these numbers of groups; layers not named stay as they are.

        Args:
            groups: {layer: number of groups}.
            with_curves: also collect the moments that :class:`Curves` need, of the layers in ``groups``.

        Raises:
            IdealGroupsError: the model or loss raised, a gradient is not finite, or a layer in ``groups`` did not run.
        """
        seen = self._repeated(groups or {}, with_curves) or self._run(_Pass(Calls(groups or {}, with_curves)))
        missing = [name for name in seen.calls.groups if name not in seen.calls.positions]
        if missing:
            raise IdealGroupsError(
                f"{missing[0]} ran when the model was as it is, and does not run with other numbers of groups: which "
                f"layers run depends on what they compute, so leave it out with exclude={missing[0]!r}."
            )
        return self._observation(seen)

    def _repeated(self, groups: Mapping[str, int], with_curves: bool) -> _Pass | None:
        """Return a pass that went like the survey, or None: there was none, other layers ran, or something raised.

        To follow all modules takes a tenth of the time of a small network's pass. What raises is run once more with a
        trace, which tells where. Where a checkpoint hides the graph, only a trace tells the order.
        """
        if self._surveyed is None or self._surveyed.hidden:
            return None
        try:
            seen = self._run(_Pass.repeating(self._surveyed, groups, with_curves))
        except IdealGroupsError:
            return None
        return seen if seen.went_alike() else None

    def _observation(self, seen: _Pass) -> Observation:
        return Observation(curves_of_calls(seen.calls.moments), *self._gradients(seen), self._optimizer)

    def _run(self, seen: _Pass, mode: NoDropout | None = None, feeds: Feeds | None = None) -> _Pass:
        """Run a pass inside ``mode``; by default inside one against dropout, unless the survey has seen none."""
        calls = seen.calls
        calls.backwards = len(self._losses)
        modules = self._modules
        with (
            self._nothing_left(),
            sandbox(self._seed, self._device),
            redirect_stdout(sys.stderr),  # what a model prints must not mix with our output
            mode or (NoDropout() if self._has_dropout else nullcontext()),
            regrouped(modules, self.norms, calls, feeds),
            feeds.follow(modules, [weight.owner for weight in self._weights]) if feeds else nullcontext(),
            nullcontext() if seen.like else seen.trace.follow(modules, self._refuse_original),
        ):
            self._backward(self._forward(seen), seen)
        return seen

    @contextmanager
    def _nothing_left(self) -> Iterator[None]:
        """Put the state of the copy back after a pass, and say so if memory ran out in it."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise IdealGroupsError(
                f"the memory does not suffice for a training step on inputs {describe(self._inputs)}; "
                "give fewer samples or smaller ones.",
                cause=error,
            ) from None
        finally:
            self._snapshot.restore()

    def _forward(self, seen: _Pass) -> list[Tensor]:
        """Run the model and return its losses."""
        output = self._output(seen.trace)
        seen.output, seen.lengths = describe(output), lengths(output)
        losses = []
        for function in self._losses:
            try:
                loss = function(output)
            except IdealGroupsError:
                raise
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                hint = "; it is given the model's output alone, as in lambda output: criterion(output, target)"
                more = hint if isinstance(error, TypeError) and "missing" in str(error) else ""
                raise IdealGroupsError(f"the loss raised {one_line(error)}{more}.", cause=error) from None
            if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
                raise IdealGroupsError(
                    "the loss must be one differentiable number: return a scalar tensor that has a gradient."
                )
            if not torch.isfinite(loss):
                raise IdealGroupsError(
                    "the loss is not finite; check the model's initialisation and the range of the inputs "
                    f"({value_range(self._inputs)})."
                )
            losses.append(loss)
        return losses

    def _output(self, trace: Trace) -> Any:
        inputs = copy_inputs(self._inputs)
        try:
            return call_model(self.model, inputs)
        except IdealGroupsError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            message = what_the_model_raised(error, self.model, self._inputs, trace.innermost)
            raise IdealGroupsError(message, cause=error) from None

    def _refuse_original(self, module: nn.Module) -> None:
        if id(module) in self._originals:
            raise IdealGroupsError(
                f"the model calls a {type(module).__name__} of its own in a way that its copy cannot follow (through a "
                "function or an object that refers to it), so planning would run the original; make it a submodule."
            )

    def _backward(self, losses: list[Tensor], seen: _Pass) -> None:
        calls = seen.calls

        def begin() -> None:
            calls.backward += 1

        self._look_at_graph(losses, seen)
        if seen.hidden:
            seen.squares = squares_at_the_end(losses, self._weights, self.model, begin)
        else:
            seen.squares = squares_at_once(losses, self._weights, begin)

    def _look_at_graph(self, losses: list[Tensor], seen: _Pass) -> None:
        """Note which weights planned norms lie behind."""
        calls = seen.calls
        start = [loss.grad_fn for loss in losses]
        # What a checkpoint hides in a later pass only, the backward pass refuses.
        seen.hidden = seen.like is None and has_reentrant_checkpoint(nodes_behind(start))
        if seen.hidden:
            seen.in_line = self._movable_by_order(seen)
        elif any(self._planned(name) for name in calls.differentiated):
            # The gradient of a normalization is part of the loss: every weight's gradient goes through it.
            seen.in_line = frozenset(map(id, leaves(nodes_behind(start))))
        else:
            seen.in_line = movable(start, (node for name, node in calls.outputs if self._planned(name)))
        calls.outputs.clear()

    def _planned(self, name: str) -> bool:
        return self._skip(name) is None

    def _movable_by_order(self, seen: _Pass) -> frozenset[int]:
        """Return the weights that ran before the last planned norm, where a checkpoint hides the graph."""
        ran = [name for name in seen.calls.positions if self._planned(name)]
        last = max((seen.trace.place(name) for name in ran), default=-1)
        return frozenset(id(w.parameter) for w in self._weights if seen.trace.place(w.owner) < last)

    def _gradients(self, seen: _Pass) -> tuple[tuple[WeightGradient, ...], tuple[str, ...]]:
        found, silent = [], []
        for weight in self._weights:
            size = self._sizes[weight.name]
            square = seen.squares.get(weight.name, 0.0) / len(self._losses)
            relative = math.sqrt(square) / size if size > 0 else 0.0
            if not math.isfinite(relative):
                raise IdealGroupsError(
                    f"the gradient of {weight.name} is not finite; check the initialisation and the inputs' range."
                )
            if relative > 0:
                gradient = WeightGradient(
                    name=weight.name,
                    relative=relative,
                    norm=size,
                    numel=weight.parameter.numel(),
                    in_line=id(weight.parameter) in seen.in_line,
                )
                found.append((seen.trace.place(weight.owner), gradient))
            else:
                silent.append(weight.name)
        if not found:
            raise IdealGroupsError(
                "no weight layer received a gradient; check that the loss depends on the weights, and the range of the "
                f"inputs ({value_range(self._inputs)})."
            )
        found.sort(key=lambda item: item[0])
        return tuple(gradient for _, gradient in found), tuple(silent)


def _is_trainable(parameter: Tensor) -> bool:
    """Integers (quantized weights) have no gradient."""
    return parameter.is_floating_point() or parameter.is_complex()
