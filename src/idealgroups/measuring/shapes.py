"""Run a model on fake tensors: the shapes of every layer, with no weight allocated and nothing computed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.hooks import RemovableHandle

from ..errors import IdealGroupsError, one_line
from ..norms import Inventory, inventory
from ..sandbox.calling import call_model, describe
from ..sandbox.supported import refuse_unsupported
from ..sandbox.tree import tree_map
from .feeds import Feeds
from .function_calls import FunctionalNorms
from .observation import Structure
from .prepare import find_weights
from .trace import Trace


def without_values() -> FakeTensorMode:
    """Return a context in which new tensors have a shape and no memory; models built in it can be planned from shapes.

    >>> with without_values():
    ...     model = nn.Linear(100_000, 100_000)
    >>> has_values(model)
    False
    """
    return FakeTensorMode(allow_non_fake_inputs=True)


def has_values(model: nn.Module) -> bool:
    """Return whether every parameter and buffer of ``model`` is more than a shape."""
    return not any(tensor.is_meta or isinstance(tensor, FakeTensor) for tensor in _tensors(model))


def survey_shapes(
    model: nn.Module, example_inputs: Any, skip: Callable[[str], str | None] = lambda name: None
) -> tuple[Inventory, Structure]:
    """Return which normalization layers run, on how many positions, and the shapes of the weights that feed them.

    Args:
        model: real, fake or on the meta device; only a copy without values runs.
        example_inputs: as the model takes them; of real inputs, too, only the shapes count.
        skip: as in :class:`~idealgroups.measuring.observer.Observer`.

    Raises:
        IdealGroupsError: the model cannot run without values, or raised.
    """
    refuse_unsupported(model)
    found = inventory(model, skip)
    fake = next((t.fake_mode for t in _tensors(model) if isinstance(t, FakeTensor)), None) or without_values()
    positions: dict[str, list[int]] = {}
    feeds = Feeds()
    try:
        twin = _without_values(model, fake)
    except Exception as error:
        raise IdealGroupsError(
            f"the model cannot be copied without its values, it raised {one_line(error)}; build it on a real device.",
            cause=error,
        ) from None
    with fake, torch.no_grad(), ExitStack() as stack:
        inputs = tree_map(lambda leaf: _shape_of(leaf, fake) if isinstance(leaf, Tensor) else leaf, example_inputs)
        modules = dict(twin.named_modules())
        stack.enter_context(feeds.follow(modules, [weight.owner for weight in find_weights(twin, found)]))
        trace = Trace()
        functional = stack.enter_context(FunctionalNorms(trace, found.norms))
        stack.enter_context(trace.follow(modules, lambda stranger: None))
        for name in found.norms:
            stack.callback(_note_calls(name, modules[name], positions, feeds).remove)
        try:
            output = describe(call_model(twin, inputs))
        except Exception as error:
            raise IdealGroupsError(
                f"the model cannot run on shapes alone, it raised {one_line(error)} on {describe(example_inputs)}; "
                "give inputs that fit, or build it with values on a real device.",
                cause=error,
            ) from None
    structure = Structure(
        positions={name: min(counts) for name, counts in positions.items()},
        flat=frozenset(name for name, counts in positions.items() if max(counts) == 1),
        weights=feeds.weights(positions),
        functional=functional.found,
        silent_norms=tuple(name for name in found.norms if name not in positions),
        odd={},
        output=output,
    )
    return found, structure


def _note_calls(name: str, module: nn.Module, positions: dict[str, list[int]], feeds: Feeds) -> RemovableHandle:
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.eval()  # in training it refuses one value per channel

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        if x.numel():
            positions.setdefault(name, []).append(x.shape[2:].numel())
            feeds.norm_runs(name, x)

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _without_values(model: nn.Module, fake: FakeTensorMode) -> nn.Module:
    """Return a copy of ``model`` whose parameters and buffers are shapes on the CPU."""
    memo: dict[int, Any] = {}
    for tensor in _tensors(model):
        if isinstance(tensor, FakeTensor):
            memo[id(tensor)] = tensor
            continue
        shape: Any = _shape_of(tensor, fake)
        if isinstance(tensor, nn.Parameter):
            shape = nn.Parameter(shape, requires_grad=False)
        memo[id(tensor)] = shape
    return copy.deepcopy(model, memo)


def _shape_of(tensor: Tensor, fake: FakeTensorMode) -> Tensor:
    """Return a fake tensor of the same shape and type; it stays on its device unless that is ``meta``."""
    device = "cpu" if tensor.is_meta and not isinstance(tensor, FakeTensor) else tensor.device
    with fake:
        shape: Tensor = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    return shape


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
