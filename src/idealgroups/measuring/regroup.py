"""Give the normalization layers of a copy a forward that normalizes with any numbers of groups, for one pass."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import Node

from ..errors import IdealGroupsError, internal
from ..norms import Norm, disagreement
from ..norms.recognise import is_trusted
from .feeds import Feeds
from .function_calls import unseen
from .graph import origin
from .moments import Call, forward_moments, gradient_sums
from .transforms import is_differentiated, is_transformed, ordinary, outside_of_transforms


@dataclass
class Calls:
    """What the normalization layers did in one pass, by name.

    ``groups``: the numbers of groups to use; other layers stay as they are. ``with_moments``: whether to keep moments
    of the regrouped layers. ``positions``: of each call. ``samples``: of the last one. ``odd``: why a layer was called
    in a way that no group norm can be. ``outputs``: the nodes of the autograd graph that the layers left.
    ``differentiated``: layers that the model itself differentiated. ``known``: these and ``odd`` are known already.
    ``backward`` counts the backward passes that have begun, of ``backwards`` in all.
    """

    groups: Mapping[str, int]
    with_moments: bool
    known: bool = False
    backwards: int = 1
    backward: int = 0
    positions: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    samples: dict[str, int] = field(default_factory=dict)
    moments: dict[str, list[Call]] = field(default_factory=lambda: defaultdict(list))
    odd: dict[str, str] = field(default_factory=dict)
    outputs: list[tuple[str, Node]] = field(default_factory=list)
    differentiated: set[str] = field(default_factory=set)


@contextmanager
def regrouped(
    modules: Mapping[str, nn.Module], norms: Mapping[str, Norm], calls: Calls, feeds: Feeds | None
) -> Iterator[None]:
    """Exchange the forward of the layers ``norms`` of ``modules`` while inside, and write what they do to ``calls``.

    ``feeds`` is told of every call, too, where it is there.
    """
    own = {name: vars(modules[name]).get("forward") for name in norms}
    try:
        for name, norm in norms.items():
            vars(modules[name])["forward"] = _Regrouped(name, modules[name], norm, calls, feeds)
        yield
    finally:
        for name, forward in own.items():
            if forward is None:
                vars(modules[name]).pop("forward", None)
            else:
                vars(modules[name])["forward"] = forward


class _Regrouped:
    """The forward of one normalization layer during one pass."""

    __slots__ = ("_calls", "_feeds", "_is_checked", "_module", "_name", "_norm", "_original")

    def __init__(self, name: str, module: nn.Module, norm: Norm, calls: Calls, feeds: Feeds | None) -> None:
        self._name, self._module, self._norm = name, module, norm
        self._calls, self._feeds = calls, feeds
        self._original = module.forward
        self._is_checked = not (calls.known or name in calls.groups or is_trusted(module))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x, others = self._arguments(args, kwargs)
        with unseen(f"recording a call of {self._name}", x):
            is_empty = isinstance(x, Tensor) and x.numel() == 0  # no proposals: nothing to normalize
            why = None if is_empty else _why_not(self._module, self._norm, x, others)
            if not is_empty and why is None:
                self._calls.positions[self._name].append(x.shape[2:].numel())
                self._calls.samples[self._name] = x.shape[0]
                if self._feeds is not None:
                    self._feeds.norm_runs(self._name, x)
        if is_empty:
            return self._as_it_is(x, args, kwargs)
        if why is not None:
            return self._odd_call(why, x, args, kwargs)
        groups = self._calls.groups.get(self._name)
        y = self._checked(x, args, kwargs) if groups is None else self._with_groups(x, groups)
        with unseen(f"recording a call of {self._name}", y):
            self._record(y)
        return y

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[Any]]:
        """Return the input and all other arguments."""
        if args:
            return args[0], [*args[1:], *kwargs.values()]
        first = next(iter(inspect.signature(self._original).parameters), "")
        return kwargs.get(first), [value for key, value in kwargs.items() if key != first]

    def _odd_call(self, why: str, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._calls.odd.setdefault(self._name, why)
        if self._name in self._calls.groups:
            raise IdealGroupsError(f"{self._name} {why}; leave it out with exclude={self._name!r}.")
        return self._as_it_is(x, args, kwargs)

    def _checked(self, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the layer itself, and note where it does on this input something else than it was taken for."""
        if not self._is_checked or is_transformed(x):
            return self._as_it_is(x, args, kwargs)
        with unseen(f"checking a call of {self._name}", x):
            before = x.detach().clone()
        y = self._as_it_is(x, args, kwargs)
        with internal(f"checking a call of {self._name}"):
            why = disagreement(self._module, self._norm, before, y.detach() if isinstance(y, Tensor) else y)
            if why is not None:
                self._calls.odd.setdefault(self._name, why)
        return y

    def _as_it_is(self, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the layer itself; batch norm as in training, unless one value a channel leaves nothing to normalize."""
        module = self._module
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and isinstance(x, Tensor) and x.ndim > 1:
            module.training = x.numel() > x.shape[1]
            if module.training and isinstance(module, nn.SyncBatchNorm):  # there is no process to wait for
                gamma, beta = self._norm.scale(module), self._norm.shift(module)
                y = F.batch_norm(x, None, None, gamma, beta, training=True, eps=self._norm.eps)
                return self._norm.finish(module, y)
        return self._original(*args, **kwargs)

    def _with_groups(self, x: Tensor, groups: int) -> Any:
        with internal(f"regrouping {self._name}"):
            weight, bias = (
                _like(x, value) for value in (self._norm.scale(self._module), self._norm.shift(self._module))
            )
            y = F.group_norm(x, groups, weight, bias, self._norm.eps)
            if self._calls.with_moments:
                self._keep_moments(x, y, weight)
        return self._norm.finish(self._module, y)

    def _keep_moments(self, x: Tensor, y: Tensor, gamma: Tensor | None) -> None:
        if not is_transformed(x):
            call = forward_moments(x.detach(), self._norm.eps)
            if y.requires_grad:
                hook = self._gradient_hook(call, x.detach(), gamma)
                origin(y).register_hook(hook)  # type: ignore[no-untyped-call]
        else:
            inner, fold = ordinary(x)
            output, fold_output = ordinary(y)
            with outside_of_transforms():
                z = fold(inner.detach())
                call = forward_moments(z, self._norm.eps)
                if output.requires_grad and not is_differentiated(y):
                    hook = self._gradient_hook(call, z, gamma)
                    output.register_hook(lambda gradient: hook(fold_output(gradient)))  # type: ignore[no-untyped-call]
        self._calls.moments[self._name].append(call)

    def _gradient_hook(self, call: Call, x: Tensor, gamma: Tensor | None) -> Callable[[Tensor], None]:
        calls, name = self._calls, self._name
        scale = None if gamma is None else gamma.detach()
        kept = [x]

        def hook(gradient: Tensor) -> None:
            if calls.backward == 0 or not kept:  # the model itself differentiates
                return
            with internal(f"summing up the gradient of {name}"):
                call.gradients.append(gradient_sums(gradient, kept[0], scale))
                if calls.backward == calls.backwards:
                    kept.clear()  # the graph's own reference to the input is gone by now

        return hook

    def _record(self, y: Any) -> None:
        """Keep the node of the output, by which weights that a norm lies behind are told from the others."""
        if not isinstance(y, Tensor):
            return
        inside = is_transformed(y)
        node = (ordinary(y)[0] if inside else origin(y)).grad_fn
        if node is None:
            return
        self._calls.outputs.append((self._name, node))
        if self._calls.known:
            return
        if inside and is_differentiated(y):
            self._calls.differentiated.add(self._name)
        elif self._calls.backward == 0:
            node.register_prehook(_notes_differentiation(self._name, self._calls))


def _notes_differentiation(name: str, calls: Calls) -> Callable[[Any], None]:
    def hook(gradients: Any) -> None:
        if calls.backward == 0:
            calls.differentiated.add(name)

    return hook


def _like(x: Tensor, parameter: Tensor | None) -> Tensor | None:
    """γ or β in the precision of ``x`` if that is higher: half precision under autocast keeps its parameters."""
    if parameter is None or x.dtype == parameter.dtype or x.dtype.itemsize < parameter.dtype.itemsize:
        return parameter
    return parameter.to(x.dtype)


def _why_not(module: nn.Module, norm: Norm, x: Any, others: list[Any]) -> str | None:
    """Return why a call is none that a group norm can stand in for; None if it is one."""
    if not isinstance(x, Tensor):
        return f"gets a {type(x).__name__} as its input, where a group norm takes a tensor"
    if any(value is not None for value in others):
        return "is called with more than one argument, where a group norm takes its input only"
    channels = norm.num_channels
    if x.ndim < 2 or x.shape[1] != channels:
        return f"has {channels} channels but got an input of shape {tuple(x.shape)}, where (N, C, …) is needed"
    can_be_unbatched: Any = module if isinstance(module, nn.modules.instancenorm._InstanceNorm) else None
    if can_be_unbatched is not None and x.ndim == can_be_unbatched._get_no_batch_dim():
        return f"gets inputs without a batch axis, (C, …), of shape {tuple(x.shape)}, where (N, C, …) is needed"
    if not x.is_floating_point():
        return f"gets {str(x.dtype).removeprefix('torch.')} values, where a group norm takes real ones"
    return None
