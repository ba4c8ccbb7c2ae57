"""model + example inputs → observe → solve → :class:`Plan`; and ``convert``, which applies it at once."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from .curves import Curves
from .errors import IdealGroupsError
from .loss import Loss
from .norms import why_not
from .observe import Observation, Observer, Survey, describe
from .plans import NotUnderstood, Plan, Site
from .progress import Steps, steps
from .solve import MAX_HALVINGS, MAX_STEPS, solve
from .strategies import (
    SOLVED,
    block_ideal_groups,
    check_strategy,
    habit,
    ideal_groups,
    largest_divisor,
    layer_budget,
    safe_groups,
)
from .surgery import replace_norms

Model = TypeVar("Model", bound=nn.Module)

MAX_PASSES = MAX_HALVINGS + MAX_STEPS + 4
"""What a progress bar counts up to; most solves end sooner."""


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
    check_strategy(strategy)
    with steps(progress, "planning", total=MAX_PASSES) as advance:
        network = Network(model, example_inputs, loss=loss, seed=seed)
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
    with steps(progress, "comparing", total=total) as advance:
        network = Network(model, example_inputs, loss=loss, seed=seed)
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
    and the plan.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    >>> net, made = convert(net, torch.randn(4, 3, 8, 8))
    >>> type(net[1]).__name__, net[1].num_groups == made.num_groups["1"]
    ('GroupNorm', True)
    """
    made = plan(model, example_inputs, strategy=strategy, loss=loss, seed=seed, progress=progress)
    done = replace_norms(made, model, inplace=inplace, include=include, exclude=exclude)
    return done.model, made


@dataclass(frozen=True)
class _Facts:
    """What is known of one layer before its groups are chosen."""

    name: str
    kind: str
    num_channels: int
    positions: int
    groups_before: int | None
    ratio: float
    note: str


class Network:
    """A model surveyed once, for which several plans can be made."""

    def __init__(self, model: nn.Module, example_inputs: Any, *, loss: Loss | None = None, seed: int = 0) -> None:
        self._started = time.perf_counter()
        self._observer = Observer(model, example_inputs, loss, seed)
        self._seed = seed
        self._input = describe(example_inputs)
        if not self._observer.norms:
            self._refuse_without_norms(model)
        self._survey, self._before = self._observer.survey()
        self._facts = _facts(self._observer, self._survey)
        if not self._facts:
            raise IdealGroupsError(
                f"none of the {len(self._observer.norms)} normalization layers of {type(model).__name__} ran on these "
                "inputs; give example inputs that reach them."
            )
        self._missed = _not_understood(self._observer, self._survey)
        self._survey_seconds = time.perf_counter() - self._started

    @property
    def before(self) -> Observation:
        """What was measured on the model as it is."""
        return self._before

    def plan(self, strategy: str, *, name: str, advance: Steps = lambda: None) -> Plan:
        """The plan of one strategy, measured."""
        started = time.perf_counter()

        def observe(groups: Mapping[str, int]) -> Observation:
            seen = self._observer.observe(groups)
            advance()
            return seen

        budget: float | None = None
        rule = habit(strategy)
        if strategy in SOLVED:
            ratios = {fact.name: fact.ratio for fact in self._facts}
            # At -max(log r) the hybrid rule leaves no layer any budget.
            lowest = 0.0 if strategy == "isometric" else min(0.0, *(-math.log(r) for r in ratios.values()))
            point = solve(
                observe,
                lambda layer, epsilon: layer_budget(strategy, epsilon, ratios[layer]),
                lowest,
                {fact.name: 1 for fact in self._facts},
            )
            groups, after, budget = dict(point.groups), point.measured, point.budget
            assert isinstance(after, Observation)
            ideals = {
                n: ideal_groups(curve, layer_budget(strategy, budget, ratios[n])) for n, curve in after.curves.items()
            }
            notes = {n: safe_groups(self._channels(n), c.positions, groups[n])[1] for n, c in after.curves.items()}
        else:
            ideals = {
                fact.name: float(rule(fact.num_channels))
                if rule
                else block_ideal_groups(fact.num_channels, fact.positions, fact.ratio)
                for fact in self._facts
            }
            safe = {
                fact.name: safe_groups(
                    fact.num_channels, fact.positions, largest_divisor(fact.num_channels, ideals[fact.name])
                )
                for fact in self._facts
            }
            groups = {n: number for n, (number, _) in safe.items()}
            notes = {n: note for n, (_, note) in safe.items()}
            after = observe(groups)
        return Plan(
            model=name,
            strategy=strategy,
            input=self._input,
            seed=self._seed,
            budget=budget,
            trend_before=self._before.trend,
            trend_after=after.trend,
            spread_before=self._before.spread,
            spread_after=after.spread,
            seconds=round(time.perf_counter() - started + self._survey_seconds, 3),
            sites=tuple(
                _site(f, groups[f.name], ideals[f.name], after.curves[f.name], notes[f.name]) for f in self._facts
            ),
            not_understood=self._missed,
        )

    def _channels(self, name: str) -> int:
        return self._observer.norms[name].num_channels

    def _refuse_without_norms(self, model: nn.Module) -> None:
        odd = [f"{name} ({type(module).__name__})" for name, module in model.named_modules() if why_not(module)]
        found = f"; not understood: {', '.join(odd[:3])}" if odd else ""
        raise IdealGroupsError(
            f"{type(model).__name__} has no normalization layer over channels, so there is no number of groups to "
            f"plan{found}; group, batch, instance and channel-wise layer norms are understood."
        )


def _facts(observer: Observer, survey: Survey) -> tuple[_Facts, ...]:
    facts = []
    for name, positions in survey.positions.items():
        norm = observer.norms[name]
        note = "γ = 0 measured as 1" if f"{name}.weight" in observer.woken else ""
        facts.append(_Facts(name, norm.kind, norm.num_channels, positions, norm.num_groups, survey.ratios[name], note))
    return tuple(facts)


def _site(facts: _Facts, groups: int, ideal: float, curve: Curves, note: str) -> Site:
    gain = float(curve.gain[curve.at(groups)])
    return Site(
        name=facts.name,
        kind=facts.kind,
        num_channels=facts.num_channels,
        positions=facts.positions,
        groups_before=facts.groups_before,
        ideal=ideal,
        num_groups=groups,
        gain=gain,
        note="; ".join(part for part in (facts.note, note) if part),
    )


def _not_understood(observer: Observer, survey: Survey) -> tuple[NotUnderstood, ...]:
    missed = [
        NotUnderstood(name, f"calls {function} itself; make it a module, for a function's groups cannot be replaced")
        for name, function in survey.functional.items()
    ]
    missed += [
        NotUnderstood(name, "did not run on these inputs, so its groups cannot be measured")
        for name in survey.silent_norms
    ]
    for name, module in observer.model.named_modules():
        why = why_not(module)
        if why is not None and name not in survey.functional:
            missed.append(NotUnderstood(name, why))
    return tuple(missed)
