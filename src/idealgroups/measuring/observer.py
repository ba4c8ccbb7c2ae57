"""Run a scratch copy once and see: the curves of every normalization layer, the relative gradient of every weight.

The copy's normalization layers get a forward of our own that applies any number of groups and keeps per-channel
moments; nothing is replaced, so models that inspect their layers still find them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from ..errors import IdealGroupsError
from ..norms import Inventory, Norm
from ..sandbox.calling import call_model, copy_inputs, describe, one_line
from ..sandbox.generators import check_seed, sandbox
from ..sandbox.snapshot import Snapshot
from ..theory.curves import Curves, Moments, curves
from ..theory.formulas import Floats, spread, trend, trend_error
from .function_calls import FunctionalWatch
from .loss import Loss, random_projection
from .prepare import Scratch, scratch_copy

CANCELLATION = 1e-2
"""Below this share of the second moment a variance is computed the slow, stable way."""


@dataclass(frozen=True)
class WeightGradient:
    """A weight layer in execution order; ``relative`` is u = ‖∂L/∂W‖_F / ‖W‖_F."""

    name: str
    relative: float


@dataclass(frozen=True)
class Observation:
    """One pass. ``gradients`` holds the layers a gradient reached, in execution order; ``silent`` names the others."""

    curves: Mapping[str, Curves]
    gradients: tuple[WeightGradient, ...]
    silent: tuple[str, ...]

    @property
    def log_u(self) -> Floats:
        """log u of the layers in ``gradients``, shape (L,)."""
        log_u: Floats = np.log(np.array([layer.relative for layer in self.gradients]))
        return log_u

    @property
    def trend(self) -> float:
        """T: last minus first of the least-squares line of log u; negative where early layers have the larger u."""
        return trend(self.log_u)

    @property
    def trend_error(self) -> float:
        """Standard error of T."""
        return trend_error(self.log_u)

    @property
    def spread(self) -> float:
        """Standard deviation of log u over layers."""
        return spread(self.log_u)


@dataclass(frozen=True)
class Survey:
    """What the first pass found. ``ratios``: elements in / elements out of the weight layer that a norm belongs to."""

    positions: Mapping[str, int]
    ratios: Mapping[str, float]
    functional: Mapping[str, str]
    silent_norms: tuple[str, ...]


@dataclass
class _Pass:
    """What one pass collects; a new one is made for each."""

    groups: Mapping[str, int] | None
    moments: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    order: dict[str, int] = field(default_factory=dict)
    elements: dict[str, tuple[int, int]] = field(default_factory=dict)
    producers: dict[str, str] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)


class Observer:
    """A scratch copy of ``model`` with its inputs and loss, ready to be observed with any numbers of groups."""

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        loss: Loss | None = None,
        seed: int = 0,
        skip: Callable[[str], str | None] = lambda name: None,
    ) -> None:
        check_seed(seed)
        with torch.inference_mode(False):  # outside of it, tensors of inference mode become ordinary ones
            self._scratch: Scratch = scratch_copy(model, seed, skip)
            self._inputs = copy_inputs(example_inputs)
        if isinstance(self._inputs, Tensor) and self._inputs.is_floating_point() and not self._inputs.any():
            raise IdealGroupsError("the example inputs are all zero, which no gradient gets past; give data or noise.")
        self._originals = {id(module): module for module in model.modules()}
        self._loss = loss or random_projection(seed)
        self._seed = seed
        self._device = next((p.device for p in self._scratch.model.parameters()), torch.device("cpu"))
        self._now = _Pass(groups=None)
        self._watch = FunctionalWatch()
        self.norms: dict[str, Norm] = {}
        self._modules: dict[str, nn.Module] = {}
        for name, module in self._scratch.model.named_modules(remove_duplicate=True):
            norm = self.found.norms.get(name)
            if norm is not None:
                self.norms[name] = norm
                self._modules[name] = module
                module.forward = self._probe(name, module, norm, module.forward)
        self._hooks = self._watch_weights()
        self._snapshot = Snapshot(self._scratch.model)

    def close(self) -> None:
        """Undo the references between the copy and what watches it, so that its memory is free at once."""
        for module in self._modules.values():
            vars(module).pop("forward", None)
        for hook in self._hooks:
            hook.remove()
        del self._snapshot

    @property
    def model(self) -> nn.Module:
        """The scratch copy."""
        return self._scratch.model

    @property
    def found(self) -> Inventory:
        """The normalization layers of the copy."""
        return self._scratch.found

    @property
    def woken(self) -> frozenset[str]:
        """Names of parameters that were initialised to contribute nothing and are measured switched on."""
        return self._scratch.woken

    def survey(self) -> tuple[Survey, Observation]:
        """One pass of the model as it is; which norms run, on how many positions, and which weights feed them."""
        with self._watch.stack(self.model, frozenset(self.norms)):
            observation = self.observe(None)
        seen = self._now
        ratios = {}
        for name in seen.moments:
            into, out = seen.elements.get(seen.producers.get(name, ""), (1, 1))
            ratios[name] = into / out
        positions = {name: min(call["positions"] for call in calls) for name, calls in seen.moments.items()}
        silent = tuple(name for name in self.norms if name not in seen.moments)
        return Survey(positions, ratios, dict(self._watch.found), silent), observation

    def observe(self, groups: Mapping[str, int] | None) -> Observation:
        """One forward and one backward pass with these numbers of groups; layers not named stay as they are.

        Raises:
            IdealGroupsError: the model or loss raised, or a gradient is not finite.
        """
        with sandbox(self._seed, self._device), self._watch:
            self._backward(groups)
        return Observation(self._curves(), *self._gradients())

    def _backward(self, groups: Mapping[str, int] | None) -> None:
        loss = self._loss_of_pass(groups)
        if any("CheckpointFunction" in node.name() for node in _nodes(loss)):
            self._backward_to_all(loss)  # a reentrant checkpoint does not work with backward(inputs=)
        else:
            self._backward_to_weights(loss)

    def _loss_of_pass(self, groups: Mapping[str, int] | None) -> Tensor:
        self._now = _Pass(groups)
        self._snapshot.restore()
        inputs = copy_inputs(self._inputs)
        guard = register_module_forward_pre_hook(self._refuse_original)
        try:
            output = call_model(self.model, inputs)
        except IdealGroupsError:
            raise
        except Exception as error:
            how = "a tensor, a tuple or a dict"
            if isinstance(inputs, dict) and isinstance(error, TypeError):
                how = "a dict is passed as keywords; a model that takes one dict needs it in a tuple, (inputs,)"
            if isinstance(inputs, Tensor) and isinstance(error, TypeError):
                how += "; on the command line let a factory return (model, example_inputs)"
            raise IdealGroupsError(
                f"the model raised {one_line(error)} — on inputs {describe(self._inputs)}; "
                f"give example inputs as the model takes them ({how})."
            ) from error
        finally:
            guard.remove()
        try:
            loss = self._loss(output)
        except IdealGroupsError:
            raise
        except Exception as error:
            raise IdealGroupsError(f"the loss raised {one_line(error)}.") from error
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise IdealGroupsError(
                "the loss must be one differentiable number: return a scalar tensor that has a gradient."
            )
        if not torch.isfinite(loss):
            raise IdealGroupsError(
                "the loss is not finite; check the model's initialisation and the range of the inputs."
            )
        return loss

    def _refuse_original(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if id(module) in self._originals:
            raise IdealGroupsError(
                f"the model calls a {type(module).__name__} of its own in a way that its copy cannot follow (through a "
                "function or an object that refers to it), so planning would run the original; make it a submodule."
            )

    def _backward_to_weights(self, loss: Tensor) -> None:
        """Gradients for the copy's weights and for nothing else."""
        wanted = [weight.parameter for weight in self._scratch.weights if weight.parameter.requires_grad]
        if not wanted:
            raise IdealGroupsError(
                "the model has no weight layers: parameters of two or more dimensions named weight, kernel or w."
            )
        try:
            loss.backward(inputs=wanted)  # type: ignore[no-untyped-call]
        except Exception as error:
            raise IdealGroupsError(f"the backward pass raised {one_line(error)}.") from error

    def _backward_to_all(self, loss: Tensor) -> None:
        """Gradients for every leaf; those of leaves that are not ours are put back."""
        ours = {id(parameter) for parameter in self.model.parameters()}
        leaves = [leaf for node in _nodes(loss) if isinstance(leaf := getattr(node, "variable", None), Tensor)]
        foreign = [(leaf, leaf.grad) for leaf in leaves if id(leaf) not in ours]
        for leaf, _ in foreign:
            leaf.grad = None
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        except Exception as error:
            raise IdealGroupsError(f"the backward pass raised {one_line(error)}.") from error
        finally:
            for leaf, gradient in foreign:
                leaf.grad = gradient

    def _curves(self) -> dict[str, Curves]:
        return {name: curves([_as_moments(call) for call in calls]) for name, calls in self._now.moments.items()}

    def _gradients(self) -> tuple[tuple[WeightGradient, ...], tuple[str, ...]]:
        order = self._now.order
        found, silent = [], []
        for weight, gradient in zip(self._scratch.weights, self._gradients_of_weights(), strict=True):
            size = float(torch.linalg.vector_norm(weight.parameter.detach(), dtype=torch.float64))
            relative = 0.0
            if gradient is not None and size > 0:
                relative = float(torch.linalg.vector_norm(gradient, dtype=torch.float64)) / size
            if not np.isfinite(relative):
                raise IdealGroupsError(
                    f"the gradient of {weight.name} is not finite; check the initialisation and the inputs' range."
                )
            if relative > 0:
                found.append((_place(weight.owner, order), WeightGradient(weight.name, relative)))
            else:
                silent.append(weight.name)
        if not found:
            raise IdealGroupsError(
                "no weight layer received a gradient; check that the loss depends on the weights and that the inputs "
                "are not all zero."
            )
        found.sort(key=lambda item: item[0])
        return tuple(gradient for _, gradient in found), tuple(silent)

    def _gradients_of_weights(self) -> list[Tensor | None]:
        """Take the gradients off the copy's parameters."""
        gradients = [weight.parameter.grad for weight in self._scratch.weights]
        for parameter in self.model.parameters():
            parameter.grad = None
        return gradients

    def _probe(self, name: str, module: nn.Module, norm: Norm, original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            now = self._now
            x: Tensor = args[0] if args else next(iter(kwargs.values()))
            if x.numel() == 0:  # no proposals: nothing to normalize
                _as_trained(module, x)
                return original(*args, **kwargs)
            channels = norm.num_channels
            if x.ndim < 2 or x.shape[1] != channels:
                raise IdealGroupsError(
                    f"{name} has {channels} channels but got an input of shape {tuple(x.shape)}; (N, C, …) is needed."
                )
            call = _channel_moments(x.detach(), norm.eps)
            now.moments[name].append(call)
            producer = getattr(x, "_idealgroups_producer", None)
            if producer is not None:
                now.producers.setdefault(name, producer)
            elif name not in now.producers:
                now.waiting.append(name)
            if now.groups is None or name not in now.groups:
                trained = _as_trained(module, x)
                if trained and isinstance(module, nn.SyncBatchNorm):  # here is no process to wait for
                    y = F.batch_norm(x, None, None, norm.scale(module), norm.shift(module), training=True, eps=norm.eps)
                    return norm.finish(module, y)
                y = original(*args, **kwargs)
            else:
                flat = [None if v is None else v.to(x.dtype) for v in (norm.scale(module), norm.shift(module))]
                y = F.group_norm(x, now.groups[name], flat[0], flat[1], norm.eps)
                if y.requires_grad:
                    y.register_hook(_gradient_moments(call, x.detach(), flat[0]))  # type: ignore[no-untyped-call]
                y = norm.finish(module, y)
            return y

        return forward

    def _watch_weights(self) -> list[RemovableHandle]:
        hooks = []
        names = defaultdict(list)
        for weight in self._scratch.weights:
            names[weight.owner].append(weight.name)
        for owner, module in self.model.named_modules(remove_duplicate=True):
            hooks.append(module.register_forward_pre_hook(self._enter(owner)))
            if owner in names:
                hooks.append(module.register_forward_hook(self._leave(owner)))
        return hooks

    def _enter(self, owner: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._now.order.setdefault(owner, len(self._now.order))

        return hook

    def _leave(self, owner: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            now = self._now
            if not (args and isinstance(args[0], Tensor) and isinstance(output, Tensor)):
                return
            now.elements.setdefault(owner, (args[0].numel(), output.numel()))
            output._idealgroups_producer = owner  # type: ignore[attr-defined]
            for name in now.waiting:  # pre-activation: the norm belongs to the weight layer behind it
                now.producers.setdefault(name, owner)
            now.waiting.clear()

        return hook


def _place(owner: str, order: Mapping[str, int]) -> float:
    """When ``owner`` ran; an owner whose parent uses its weight directly ran when the parent did."""
    while owner not in order and owner:
        owner = owner.rpartition(".")[0]
    return order.get(owner, 0)


@torch.no_grad()
def _channel_moments(x: Tensor, eps: float) -> dict[str, Any]:
    flat = x.flatten(2) if x.ndim > 2 else x.unsqueeze(-1)
    mean = flat.mean(-1)
    square = torch.linalg.vector_norm(flat, dim=-1) ** 2 / flat.shape[-1]
    var = square - mean**2
    # Seven times as fast as a stable variance, and as good unless the mean is far larger than the deviation.
    if bool((var < CANCELLATION * square).any()):
        var = torch.var(flat, dim=-1, correction=0)
    return {"mean": mean, "var": var, "positions": flat.shape[-1], "eps": eps}


def _gradient_moments(call: dict[str, Any], x: Tensor, gamma: Tensor | None) -> Callable[[Tensor], None]:
    gamma = None if gamma is None else gamma.detach()

    @torch.no_grad()
    def hook(gradient: Tensor) -> None:
        d, z = gradient.reshape(*x.shape[:2], -1), x.reshape(*x.shape[:2], -1)
        scale = torch.ones(x.shape[1], dtype=x.dtype, device=x.device) if gamma is None else gamma
        call["grad_sum"] = d.sum(-1) * scale
        call["grad_square"] = torch.linalg.vector_norm(d, dim=-1) ** 2 * scale**2
        call["grad_dot"] = torch.einsum("ncs,ncs->nc", d, z) * scale

    return hook


def _as_moments(call: Mapping[str, Any]) -> Moments:
    arrays: dict[str, Any] = {k: v.double().cpu().numpy() if isinstance(v, Tensor) else v for k, v in call.items()}
    return Moments(**arrays)


def _as_trained(module: nn.Module, x: Tensor) -> bool:
    """Batch norm acts as in training, except where one value a channel leaves nothing to normalize."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.training = x.numel() > x.shape[1]
    return module.training


def _nodes(loss: Tensor) -> Iterator[Node]:
    """The nodes of the graph behind ``loss``."""
    seen, nodes = set(), [loss.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            nodes.extend(function for function, _ in node.next_functions)
