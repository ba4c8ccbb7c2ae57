"""Survey a model once; then make a plan for each strategy, and measurements."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from .conversion.matching import match
from .conversion.trained import outside, trained_norms
from .errors import IdealGroupsError
from .fingerprint import fingerprint
from .measuring.loss import Loss
from .measuring.observation import Observation, Optimizer, Structure
from .measuring.observer import Observer
from .missed import by_function, no_normalization
from .norms.purpose import remarks
from .norms.twins import find_twins
from .progress import Steps
from .records import Gradients, NotUnderstood, Site
from .results import Measurement, Plan
from .sandbox.calling import describe
from .selection import Patterns
from .synthetic import inputs_for
from .theory.curves import Curves
from .theory.layer import Choice, Groups, Layer
from .theory.strategies import Strategy, parse_strategy
from .version import made_with

SHARED_PASSES = 2
"""Passes that serve all strategies: one of the model as it is, one with one group in every layer."""

TYPICAL_PASSES = 4
"""Passes of most plans: the shared ones and the checks of a search, of which there are one to five."""

TOO_SMALL = "a group norm there would be a constant or a sign"
"""Normalizing takes two of the directions that a sample's values can change in; with one or two, none is left."""


NEARLY_NOTHING = 0.1
"""A share of measured weights below which a plan comes with a warning. Ours; nothing else depends on it."""


@dataclass(frozen=True)
class _Facts:
    """What is known of one layer before its groups are chosen."""

    kind: str
    groups_before: int | None
    note: str
    layer: Layer

    def site(self, choice: Choice[Observation], curves: Mapping[str, Curves]) -> Site:
        layer, groups = self.layer, choice.groups[self.layer.name]
        curve = curves.get(layer.name)
        return Site(
            name=layer.name,
            kind=self.kind,
            num_channels=layer.num_channels,
            positions=layer.positions,
            groups_before=self.groups_before,
            ideal=choice.ideals[layer.name],
            num_groups=groups,
            gain=float(curve.gain[curve.at(groups)]) if curve else math.nan,
            note="; ".join(part for part in (self.note, choice.notes.get(layer.name, "")) if part),
        )


@dataclass(frozen=True)
class _Look:
    """What the first pass saw. ``twins``: {layer: the layer of a twin module that it gets the groups of}.

    ``causal``: an axis of the inputs along which the model is causal, and is not with group norms.
    """

    facts: tuple[_Facts, ...]
    before: Observation
    missed: tuple[NotUnderstood, ...]
    output: str
    twins: Mapping[str, str]
    twins_that_ran: tuple[str, ...]
    causal: int | None


class Survey:
    """A model that is looked at once, for several plans and measurements. The model itself is left as it was.

    Args:
        model: as in :func:`idealgroups.plan`, as all the others.
        example_inputs: what the model takes; each pass copies them, so leave them as they are meanwhile.
        input_size: the shape of one synthetic input instead of ``example_inputs``, batch first.
        optimizer: whose steps are balanced.
        loss: the model's output → a scalar.
        seed: of the random projection and of whatever the model draws.
        name: how results call the model; default its class.
        include: plan only layers whose name matches one of these patterns.
        exclude: leave layers whose name matches one of these patterns.

    Raises:
        IdealGroupsError: the model cannot be copied or is wrapped; the inputs are missing or empty.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    >>> with Survey(net, torch.randn(4, 3, 8, 8)) as survey:
    ...     [survey.plan(strategy).num_groups["1"] for strategy in ("fixed-4", "group-size-2")]
    [4, 8]
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any = None,
        *,
        input_size: Sequence[int] | None = None,
        optimizer: Optimizer = "sgd",
        loss: Loss | None = None,
        seed: int = 0,
        name: str | None = None,
        include: str | Collection[str] | None = None,
        exclude: str | Collection[str] | None = None,
    ) -> None:
        started = time.perf_counter()
        self.patterns = Patterns(include, exclude)
        inputs = inputs_for(model, example_inputs, input_size, seed)
        self._observer = Observer(model, inputs, loss, seed, optimizer, self.patterns.why_not)
        self._model = model
        self._seed = seed
        self._optimizer = optimizer
        self._name = name or type(model).__name__
        self._input = describe(inputs)
        self._fingerprint = fingerprint(model)
        self._seen: dict[tuple[tuple[str, int], ...], Observation] = {}
        self._seconds = time.perf_counter() - started

    def __enter__(self) -> Survey:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory of the copy at once; no plan can be made any more."""
        self._observer.close()

    @cached_property
    def _look(self) -> _Look:
        """The first pass: the model as it is."""
        started = time.perf_counter()
        observer = self._observer
        if not observer.norms:
            raise no_normalization(self._model, observer.functional_norms(), observer.found)
        self.patterns.check(observer.found.names)
        structure, before = observer.survey()
        every = _facts(observer, structure)
        wanted = tuple(one for one in every if self.patterns.why_not(one.layer.name) is None)
        facts = tuple(one for one in wanted if one.layer.num_channels * one.layer.positions > 2)
        if wanted and not facts:
            raise IdealGroupsError(
                f"the normalization layers of {type(self._model).__name__} have one or two values to normalize in each "
                f"sample (first: {wanted[0].layer.name}): {TOO_SMALL}; keep batch norm there."
            )
        if every and not wanted:
            raise IdealGroupsError("include= and exclude= leave no normalization layer to plan; change the patterns.")
        if not every:
            for name, why in structure.odd.items():
                raise IdealGroupsError(f"no normalization layer can be planned: {name} {why}.")
            raise IdealGroupsError(
                f"none of the {len(observer.norms)} normalization layers of {type(self._model).__name__} ran on these "
                "inputs; give example inputs that reach them."
            )
        ran = {one.layer.name for one in facts}
        silent = {name for name in structure.silent_norms if self.patterns.why_not(name) is None}
        twins = find_twins(observer.model, [name for name in observer.norms if name in ran | silent], ran)
        self._seconds += time.perf_counter() - started
        return _Look(
            facts=tuple(one for one in facts if one.layer.name not in twins),
            before=before,
            missed=_not_understood(observer, structure, every, twins),
            output=structure.output,
            twins=twins,
            twins_that_ran=tuple(name for name in twins if name in ran),
            causal=observer.loses_order(),
        )

    @property
    def before(self) -> Gradients:
        """What was measured on the model as it is."""
        return self._look.before.measured

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that are planned, in execution order."""
        return tuple(facts.layer for facts in self._look.facts)

    def _observe(self, groups: Groups, with_curves: bool = False, advance: Steps = lambda: None) -> Observation:
        """Return one pass with ``groups``; a pass that was made before is not made again, and does not ``advance``."""
        look = self._look
        key = tuple(sorted((name, number) for name, number in groups.items() if name not in look.twins))
        seen = self._seen.get(key)
        if seen is None or (with_curves and not seen.curves):
            twins = {name: groups[twin] for name in look.twins_that_ran if (twin := look.twins[name]) in groups}
            seen = self._seen[key] = self._observer.observe({**groups, **twins}, with_curves)
            advance()
        return seen

    def plan(self, strategy: str | Strategy = "isometric", *, advance: Steps = lambda: None) -> Plan:
        """Return the plan of one strategy, measured.

        Args:
            strategy: its name or object, as in :func:`idealgroups.plan`.
            advance: called after every pass that is made, that of the model as it is included.

        Raises:
            IdealGroupsError: no such strategy; no normalization layer that runs; a gradient that is not finite.
        """
        chosen = parse_strategy(strategy)
        is_first = "_look" not in vars(self)
        look = self._look
        if is_first:
            advance()
        share = _share(look.before, self._observer)
        if share < NEARLY_NOTHING:
            warnings.warn(
                f"gradients reach {share:.1%} of the weights of {self._name} on these inputs, so the plan says little "
                "about the network; check the loss and the inputs.",
                UserWarning,
                stacklevel=outside(),
            )
        if look.causal is not None:
            warnings.warn(
                f"{self._name} is causal along axis {look.causal} of its input: what it returns at a position depends "
                "on no later one. Its group norms would take their statistics over all positions, so it would see "
                "later ones; where it must not (streaming, sampling), keep batch norm.",
                UserWarning,
                stacklevel=outside(),
            )
        started = time.perf_counter()

        def observe(groups: Groups, with_curves: bool) -> Observation:
            return self._observe(groups, with_curves, advance)

        one = observe({layer.name: 1 for layer in self.layers}, True)
        choice = chosen.choose(self.layers, observe)
        after = choice.measured or observe(choice.groups, False)
        return Plan(
            model=self._name,
            strategy=chosen.name,
            input=self._input,
            seed=self._seed,
            sites=self._sites(choice, one.curves),
            before=look.before.measured,
            after=after.measured,
            not_understood=look.missed,
            budget=choice.budget,
            lowest_trend=choice.lowest_trend,
            one_group_trend=one.trend,
            one_number=choice.one_number,
            optimizer=self._optimizer,
            output=look.output,
            fingerprint=self._fingerprint,
            measured_share=share,
            trained=bool(trained_norms(self._model, self._observer.norms)),
            made_with=made_with(),
            seconds=round(time.perf_counter() - started + self._seconds, 3),
        )

    def _sites(self, choice: Choice[Observation], curves: Mapping[str, Curves]) -> tuple[Site, ...]:
        look = self._look
        sites = {facts.layer.name: facts.site(choice, curves) for facts in look.facts}
        for name, twin in look.twins.items():
            if twin in sites:
                before = self._observer.norms[name].num_groups
                sites[name] = replace(sites[twin], name=name, groups_before=before, note=f"as its twin {twin}")
        return tuple(sites.values())

    def measure(self, plan: Plan | None = None) -> Measurement:
        """Return the gradients of the model as it is, or as it would be with ``plan``."""
        groups = None if plan is None else dict(match(self._model, plan, Patterns()).groups)
        seen = self._observer.observe(groups)
        return Measurement(
            model=self._name,
            input=self._input,
            seed=self._seed,
            gradients=seen.measured,
            fingerprint=self._fingerprint,
        )


def _share(seen: Observation, observer: Observer) -> float:
    """Return which share of the parameters' values, without embeddings and norms, had a gradient that was measured."""
    measured = sum(layer.numel for layer in seen.gradients)
    return min(measured / observer.num_values, 1.0) if observer.num_values else 1.0


def _facts(observer: Observer, structure: Structure) -> tuple[_Facts, ...]:
    facts = []
    others = remarks(observer.model, observer.norms, [weight.owner for weight in observer.weights])
    for name, positions in structure.positions.items():
        norm = observer.norms[name]
        notes = [
            "γ = 0 measured as 1" if f"{name}.{norm.weight}" in observer.woken else "",
            others.get(name, ""),
            "normalizes over rows that are no samples (nodes, points), and a group norm each row by itself"
            if norm.over_batch and name in structure.flat and structure.samples.get(name) not in (None, *observer.sizes)
            else "",
        ]
        layer = Layer(
            name=name,
            num_channels=norm.num_channels,
            positions=positions,
            flat=name in structure.flat,
            weight=structure.weights.get(name),
        )
        facts.append(_Facts(norm.kind, norm.num_groups, "; ".join(filter(None, notes)), layer))
    return tuple(facts)


def _not_understood(
    observer: Observer, structure: Structure, facts: tuple[_Facts, ...], twins: Mapping[str, str]
) -> tuple[NotUnderstood, ...]:
    odd = observer.found.odd
    missed = by_function(structure.functional, observer.found)
    missed += [
        NotUnderstood(name=name, why="did not run on these inputs; give inputs that reach it")
        for name in structure.silent_norms
        if name not in twins
    ]
    missed += [
        NotUnderstood(
            name=one.layer.name, why=f"has {'1 value' if size == 1 else f'{size} values'} to normalize: {TOO_SMALL}"
        )
        for one in facts
        if (size := one.layer.num_channels * one.layer.positions) <= 2
    ]
    missed += [NotUnderstood(name=name, why=why) for name, why in structure.odd.items()]
    return (*missed, *(NotUnderstood(name=name, why=why) for name, why in odd.items()))
