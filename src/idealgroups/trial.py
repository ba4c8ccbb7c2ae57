"""Try a converted model before it is handed out: it runs, and does what was measured with its numbers of groups.

Measuring replaces what the normalization layers compute and leaves the layers in place. Conversion changes their class,
which the code of a model may ask for. So the converted model is run once, and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from .conversion.change import set_norms
from .conversion.surgery import Surgery, replace_norms
from .conversion.travel import Settings
from .errors import IdealGroupsError, one_line
from .measuring.observation import Observation
from .measuring.observer import Observer
from .measuring.transforms import is_transformed
from .norms import Norm, inventory
from .results import Plan
from .sandbox.copying import Model, copy_model
from .sandbox.tree import tensors
from .sandbox.walking import named_modules
from .selection import Patterns

TOLERANCE = 1e-3
"""How far the trend of the converted model may be from the promised one; rounding alone stays a factor of ten below."""

LOST = 1e-5
"""A gradient this far below the others' change is rounding: an exact zero in exact arithmetic. Ours."""


class Watch(Protocol):
    """Makes the observer of a model, with the inputs, loss and seed of the plan."""

    def __call__(self, model: nn.Module, copy_of: nn.Module | None = None, /) -> Observer:
        """Observe a copy of ``model``, or ``model`` itself if it is a copy of ``copy_of`` that nobody needs."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a converted model; ``what`` continues a sentence about it."""

    what: str


@dataclass
class _Seen:
    """What ran. ``constant``: converted layers whose output is the same everywhere, though their input is not.

    ``alike``: the model's output is the same for all samples, though its input is not.
    """

    running: list[str] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)
    alike: bool = False


class _FaultyError(Exception):
    """Ends a conversion so that everything is put back."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.what)
        self.fault = fault


def replace_and_try(
    model: Model,
    plan: Plan,
    before: Observation,
    promised: Observation,
    watch: Watch,
    *,
    inplace: bool = False,
    include: str | Collection[str] | None = None,
    exclude: str | Collection[str] | None = None,
    calibrated: bool = False,
    then: Callable[[Model], None] | None = None,
) -> Surgery[Model]:
    """Carry out ``plan``, and try the result before it is returned; arguments as in :func:`find_fault` and ``apply``.

    A copy is tried that is thrown away, so that memory holds the model and one copy of it at a time. ``then`` is called
    after the trial in the same way: with another copy that it may use up, or with ``model`` itself if ``inplace``.

    Raises:
        IdealGroupsError: as :func:`replace_norms` does, or the converted model does not do what was measured. The
            layers to leave out are named, and the model is as it was.
    """
    planned = tuple(plan.num_groups)

    def check(converted: nn.Module) -> None:
        copy_of = None if converted is model else model
        fault = find_fault(converted, planned, before, promised, watch, copy_of)
        if fault is not None:
            raise _FaultyError(fault)

    try:
        return replace_norms(
            model,
            plan,
            inplace=inplace,
            include=include,
            exclude=exclude,
            calibrated=calibrated,
            checks=(check,) if then is None else (check, then),
        )
    except _FaultyError as error:
        patterns = Patterns(include, exclude)
        groups = {name: number for name, number in plan.num_groups.items() if patterns.why_not(name) is None}
        culprits = find_culprits(model, groups, inventory(model, patterns.why_not).norms, watch)
        raise _refusal(error.fault, model, culprits, some_left=len(culprits) < len(groups)) from None


def find_fault(
    converted: nn.Module,
    layers: Iterable[str],
    before: Observation,
    promised: Observation,
    watch: Watch,
    copy_of: nn.Module | None = None,
) -> Fault | None:
    """Run ``converted`` once and compare it with what was measured before the conversion.

    Args:
        converted: the converted model. It is left as it is, unless it is a copy.
        layers: the names of its converted layers.
        before: what was measured on the model as it was.
        promised: what was measured with the same numbers of groups on the model as it was.
        watch: how that was measured.
        copy_of: the model of which ``converted`` is a converted copy that may be used up.
    """
    with closing(watch(converted, copy_of)) as observer:
        seen = _Seen()
        try:
            with _following(observer.model, frozenset(layers), seen):
                found = observer.observe(None)
        except IdealGroupsError as error:
            cause = error.cause or error.__cause__ or error
            place = f" in {seen.running[-1]}" if seen.running and seen.running[-1] else ""
            return Fault(f"raises {one_line(cause)}{place}")
        if seen.constant:
            return Fault(f"has a constant output of the layer {seen.constant[0]}")
        if seen.alike:
            return Fault("gives the same output for every sample")
        lost = _lost(before, found) or sorted({layer.name for layer in promised.gradients} & set(found.silent))
        lost = lost and _lost_both_ways(lost, before, observer)
        if lost:
            return Fault(f"lets no gradient reach {lost[0]}")
        off = _deviation(promised, found)
        if off > TOLERANCE and _deviation(found, observer.observe(None)) <= TOLERANCE:  # it is not random by itself
            return Fault(f"computes something else than what was measured (its trend is off by {off:.2g})")
    return None


def find_culprits(
    model: nn.Module, groups: Mapping[str, int], norms: Mapping[str, Norm], watch: Watch
) -> tuple[str, ...]:
    """Find the layers without which the rest of ``groups`` can be converted.

    The first culprit is the last layer of the shortest part of ``groups``, in order, that has a fault. Layers of the
    same name in modules of the same class are tried with it.
    """

    def fails(names: Iterable[str]) -> bool:
        part = {name: groups[name] for name in names}
        if not part:
            return False
        with closing(watch(model)) as observer:
            before, promised = observer.observe(None), observer.observe(part)
        twin = copy_model(model)
        set_norms(twin, {name: Settings(number) for name, number in part.items()}, norms, [], "the plan")
        return find_fault(twin, part, before, promised, watch, model) is not None

    left, culprits = list(groups), list[str]()
    while fails(left):
        few, many = 0, len(left)  # the first `few` are fine, the first `many` are not
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (few, middle) if fails(left[:middle]) else (middle, many)
        found = [left[many - 1]]
        siblings = [name for name in left if _kind(model, name) == _kind(model, found[0])]
        if len(siblings) > 1 and fails([name for name in left if name not in found]):
            found = siblings
        culprits += found
        left = [name for name in left if name not in found]
    return tuple(culprits)


def _refusal(fault: Fault, model: nn.Module, culprits: Sequence[str], some_left: bool) -> IdealGroupsError:
    """The error that says what is wrong and which layers to leave out."""
    wrong = f"the converted {type(model).__name__} {fault.what}"
    if not culprits:
        return IdealGroupsError(f"{wrong}, and did not when it was tried again; make its forward pass repeatable.")
    wrong += f", because of the group norm at {culprits[0] or 'its root'}"
    if not some_left:
        return IdealGroupsError(f"{wrong}, and no norm is left without it; change the code that calls it.")
    listed = repr(culprits[0]) if len(culprits) == 1 else f"[{', '.join(map(repr, culprits))}]"
    return IdealGroupsError(f"{wrong}; leave it as it is with exclude={listed}.")


def _kind(model: nn.Module, name: str) -> tuple[type[nn.Module], str]:
    parent, _, own = name.rpartition(".")
    return type(model.get_submodule(parent)), own


def _lost(before: Observation, found: Observation) -> list[str]:
    """Weights whose gradient is next to nothing now, beside what it was and what became of the others."""
    first, second = ({layer.name: layer.relative for layer in seen.gradients} for seen in (before, found))
    least = LOST * float(np.median(list(first.values())))
    change = {name: second.get(name, 0.0) / value for name, value in first.items() if value > least}
    usual = float(np.median(list(change.values())))
    return [name for name, factor in change.items() if factor <= LOST * usual]


def _lost_both_ways(lost: Sequence[str], before: Observation, observer: Observer) -> list[str]:
    """The weights of ``lost`` that get no gradient with the opposite sign either; the others feed a ReLU that is off.

    A bottleneck of one or two units, as in squeeze and excitation, may be off for all samples by chance. What groups
    cut off has no gradient whatever the weights are.
    """
    owners = [observer.model.get_submodule(weight.owner) for weight in observer.weights if weight.name in lost]
    parameters = [weight.parameter for weight in observer.weights if weight.name in lost]
    parameters += [bias for owner in set(owners) if isinstance(bias := getattr(owner, "bias", None), nn.Parameter)]
    with torch.no_grad():
        for parameter in parameters:  # of a copy, which the pass puts back
            parameter.neg_()
    other = observer.observe(None)
    silent = {*_lost(before, other), *other.silent}
    return [name for name in lost if name in silent]


def _deviation(one: Observation, other: Observation) -> float:
    """How far the trends of two observations are apart, over the weights that both have a gradient for.

    The slope is that of least squares, whose lines can be subtracted, which robust ones cannot.
    """
    first, second = ({layer.name: layer.relative for layer in seen.gradients} for seen in (one, other))
    names = [name for name in first if name in second]
    if len(names) < 2:
        return 0.0
    apart = np.log([first[name] / second[name] for name in names])
    places = np.arange(len(names)) - (len(names) - 1) / 2
    slope = float(places @ apart / (places @ places))  # of a difference: that of the two lines
    return abs(slope) * (len(names) - 1)


@contextmanager
def _following(model: nn.Module, layers: frozenset[str], seen: _Seen) -> Iterator[None]:
    """Note in ``seen`` what runs. What is in ``running`` after an error was running when it was raised.

    ``model`` is a copy, so a hook may be on it: torch leaves a trace of hooks for all modules that take keywords.
    """
    names = {id(module): name for name, module in named_modules(model).items()}

    def enter(module: nn.Module, args: Any) -> None:
        if id(module) in names:
            seen.running.append(names[id(module)])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        name = names.get(id(module))
        if name is None:
            return
        while seen.running and seen.running.pop() != name:  # a module left by an exception that the model caught
            pass
        if name in layers and args and _constant(output) and not _constant(args[0]):
            seen.constant.append(name)

    def leave_model(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        inputs = list(tensors((args, kwargs)))
        seen.alike = _alike(output) and output.requires_grad and not all(map(_alike, inputs))

    # Hooks for all modules at once: two for each would take more memory than the model's own objects.
    handles = [
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave),
        model.register_forward_hook(leave_model, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _constant(x: Any) -> bool:
    """Whether every channel of ``x``, of shape (N, C, …), has one value for all samples and positions."""
    if not isinstance(x, Tensor) or is_transformed(x) or x.ndim < 2 or x.numel() <= x.shape[1]:
        return False
    dims = [dim for dim in range(x.ndim) if dim != 1]
    return bool((x.amax(dims) == x.amin(dims)).all())


@torch.no_grad()
def _alike(x: Any) -> bool:
    """Whether a tensor is the same for each of several samples."""
    return (
        isinstance(x, Tensor)
        and not is_transformed(x)
        and x.ndim > 1
        and len(x) > 1
        and x.numel() > 0
        and bool((x == x[:1]).all())
    )
