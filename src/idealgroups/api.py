"""model + example inputs → observe → solve → :class:`Plan`; and ``convert``, which applies it at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any, TypeVar

from torch import nn

from .conversion.matching import Patterns
from .conversion.surgery import replace_norms
from .measuring.loss import Loss
from .planner import MAX_PASSES, Network
from .progress import steps
from .results import Plan
from .theory.strategies import SOLVED, check_strategy

Model = TypeVar("Model", bound=nn.Module)


def plan(
    model: nn.Module,
    example_inputs: Any,
    *,
    strategy: str = "isometric",
    loss: Loss | None = None,
    seed: int = 0,
    name: str | None = None,
    progress: bool | None = None,
) -> Plan:
    """The number of groups for every normalization layer of ``model``; the model is left exactly as it was.

    Args:
        model: any network with group, batch, instance or channel-wise layer normalization over (N, C, …).
        example_inputs: what the model takes: a tensor, a tuple (positional) or a dict (keywords). No labels.
        strategy: ``isometric``, ``hybrid``, ``block`` or an existing method such as ``fixed-32`` (``strategies.py``).
        loss: the model's output → a scalar. Default: a fixed random projection of everything the model returns.
        seed: of the random projection and of whatever the model draws. Same seed, same plan.
        name: how the plan calls the model; default its class.
        progress: show a progress bar; default where standard error is a terminal.

    Raises:
        IdealGroupsError: no normalization layer, inputs that do not fit, non-finite gradients, a wrapped model.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    >>> plan(net, torch.randn(4, 3, 8, 8), strategy="fixed-32").num_groups
    {'1': 16}
    """
    return _plan(model, example_inputs, strategy, loss, seed, name, progress, Patterns())


def _plan(
    model: nn.Module,
    example_inputs: Any,
    strategy: str,
    loss: Loss | None,
    seed: int,
    name: str | None,
    progress: bool | None,
    patterns: Patterns,
) -> Plan:
    check_strategy(strategy)
    with (
        steps(progress, "planning", total=MAX_PASSES) as advance,
        closing(Network(model, example_inputs, loss=loss, seed=seed, patterns=patterns)) as network,
    ):
        advance()
        return network.plan(strategy, name=name or type(model).__name__, advance=advance)


def compare(
    model: nn.Module,
    example_inputs: Any,
    strategies: Sequence[str],
    *,
    loss: Loss | None = None,
    seed: int = 0,
    name: str | None = None,
    progress: bool | None = None,
) -> tuple[Plan, ...]:
    """One plan a strategy, all measured on the same copy of ``model`` with the same inputs."""
    for strategy in strategies:
        check_strategy(strategy)
    total = sum(MAX_PASSES if strategy in SOLVED else 1 for strategy in strategies)
    with (
        steps(progress, "comparing", total=total) as advance,
        closing(Network(model, example_inputs, loss=loss, seed=seed)) as network,
    ):
        return tuple(network.plan(s, name=name or type(model).__name__, advance=advance) for s in strategies)


def convert(
    model: Model,
    example_inputs: Any,
    *,
    strategy: str = "isometric",
    loss: Loss | None = None,
    seed: int = 0,
    inplace: bool = False,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    progress: bool | None = None,
) -> tuple[Model, Plan]:
    """Plan and apply in one step: BatchNorm and its like become GroupNorm, each with its ideal number of groups.

    Arguments as in :func:`plan` and :func:`idealgroups.apply`. Returns the converted model (a copy unless ``inplace``)
    and the plan, which is for the layers that ``include`` and ``exclude`` leave, with all others as they are.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    >>> net, made = convert(net, torch.randn(4, 3, 8, 8))
    >>> type(net[1]).__name__, net[1].num_groups == made.num_groups["1"]
    ('GroupNorm', True)
    """
    made = _plan(model, example_inputs, strategy, loss, seed, None, progress, Patterns(include, exclude))
    done = replace_norms(made, model, inplace=inplace, include=include, exclude=exclude)
    return done.model, made
