"""A network that has been looked at: what its layers are, and the plan that each strategy makes for them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from .errors import IdealGroupsError, NoNormalizationError
from .fingerprint import fingerprint
from .measuring.loss import Loss
from .measuring.observation import Observation, Optimizer, Survey
from .measuring.observer import Observer
from .norms.twins import find_twins
from .progress import Steps
from .records import NotUnderstood, Site
from .results import Plan
from .sandbox.calling import describe
from .selection import Patterns
from .theory.curves import Curves
from .theory.layer import Choice, Groups, Layer
from .theory.solve import MAX_CHECKS
from .theory.strategies import Strategy, parse_strategy
from .version import made_with

MAX_PASSES = MAX_CHECKS + 2
"""What a progress bar counts up to; most searches end sooner."""

TOO_SMALL = "a group norm there would be a constant or a sign"
"""Normalizing takes two of the directions that a sample's values can change in; with one or two, none is left."""


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


class Network:
    """A model surveyed once, for which several plans can be made. ``before``: what was measured on it as it is.

    ``after``: what was measured with the last plan that was made.

    ``patterns``: which layers are planned; the others stay as they are while these are measured.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *,
        loss: Loss | None = None,
        seed: int = 0,
        optimizer: Optimizer = "sgd",
        patterns: Patterns = Patterns(),  # noqa: B008 — frozen
    ) -> None:
        started = time.perf_counter()
        self._observer = Observer(model, example_inputs, loss, seed, optimizer, patterns.why_not)
        self._seed = seed
        self._optimizer = optimizer
        self._input = describe(example_inputs)
        self._fingerprint = fingerprint(model)
        if not self._observer.norms:
            self._refuse_without_norms(model)
        patterns.check(self._observer.found.names)
        survey, self.before = self._observer.survey()
        self.after = self.before
        facts = _facts(self._observer, survey)
        wanted = tuple(one for one in facts if patterns.why_not(one.layer.name) is None)
        self._facts = tuple(one for one in wanted if one.layer.num_channels * one.layer.positions > 2)
        if wanted and not self._facts:
            raise IdealGroupsError(
                f"the normalization layers of {type(model).__name__} have one or two values to normalize in each "
                f"sample (first: {wanted[0].layer.name}): {TOO_SMALL}; keep batch norm there."
            )
        ran = {one.layer.name for one in self._facts}
        silent = {name for name in survey.silent_norms if patterns.why_not(name) is None}
        self._twins = find_twins(self._observer.model, [n for n in self._observer.norms if n in ran | silent], ran)
        self._facts = tuple(one for one in self._facts if one.layer.name not in self._twins)
        self._twins_that_ran = [name for name in self._twins if name in ran]
        if facts and not wanted:
            raise IdealGroupsError("include= and exclude= leave no normalization layer to plan; change the patterns.")
        if not facts:
            odd = "".join(f", and {name} {why}" for name, why in list(survey.odd.items())[:1])
            raise IdealGroupsError(
                f"none of the {len(self._observer.norms)} normalization layers of {type(model).__name__} ran on these "
                f"inputs{odd}; give example inputs that reach them."
            )
        self._missed = _not_understood(self._observer, survey, facts, self._twins)
        self._seen: dict[tuple[tuple[str, int], ...], Observation] = {}
        self._survey_seconds = time.perf_counter() - started

    def close(self) -> None:
        """Free the memory of the copy at once; no plan can be made any more."""
        self._observer.close()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that are planned, in execution order."""
        return tuple(facts.layer for facts in self._facts)

    def observe(self, groups: Groups, with_curves: bool = False) -> Observation:
        """Return one pass with ``groups``; a pass that was made before is not made again."""
        key = tuple(sorted(groups.items()))
        seen = self._seen.get(key)
        if seen is None or (with_curves and not seen.curves):
            twins = {name: groups[twin] for name in self._twins_that_ran if (twin := self._twins[name]) in groups}
            seen = self._seen[key] = self._observer.observe({**groups, **twins}, with_curves)
        return seen

    def plan(self, strategy: str | Strategy, *, name: str, advance: Steps = lambda: None) -> Plan:
        """Return the plan of one strategy, measured."""
        started = time.perf_counter()

        def observe(groups: Groups, with_curves: bool) -> Observation:
            seen = self.observe(groups, with_curves)
            advance()
            return seen

        chosen = parse_strategy(strategy)
        one = observe({layer.name: 1 for layer in self.layers}, True)
        choice = chosen.choose(self.layers, observe)
        after = choice.measured or observe(choice.groups, False)
        self.after = self.observe(choice.groups)
        return Plan(
            model=name,
            strategy=chosen.name,
            input=self._input,
            seed=self._seed,
            budget=choice.budget,
            before=self.before.measured,
            after=after.measured,
            fingerprint=self._fingerprint,
            made_with=made_with(),
            seconds=round(time.perf_counter() - started + self._survey_seconds, 3),
            sites=self._sites(choice, one.curves),
            not_understood=self._missed,
            lowest_trend=choice.lowest_trend,
            one_number=choice.one_number,
            optimizer=self._optimizer,
        )

    def _sites(self, choice: Choice[Observation], curves: Mapping[str, Curves]) -> tuple[Site, ...]:
        sites = {facts.layer.name: facts.site(choice, curves) for facts in self._facts}
        for name, twin in self._twins.items():
            if twin in sites:
                before = self._observer.norms[name].num_groups
                sites[name] = replace(sites[twin], name=name, groups_before=before, note=f"as its twin {twin}")
        return tuple(sites.values())

    def _refuse_without_norms(self, model: nn.Module) -> None:
        odd = [f"{name} ({type(model.get_submodule(name)).__name__})" for name in self._observer.found.odd]
        found = f"; not understood: {', '.join(odd[:3])}" if odd else ""
        raise NoNormalizationError(
            f"{type(model).__name__} has no normalization layer over channels, so there is no number of groups to "
            f"plan{found}; group, batch, instance and channel-wise layer norms are understood."
        )


def _facts(observer: Observer, survey: Survey) -> tuple[_Facts, ...]:
    facts = []
    for name, positions in survey.positions.items():
        norm = observer.norms[name]
        note = "γ = 0 measured as 1" if f"{name}.{norm.weight}" in observer.woken else ""
        layer = Layer(
            name=name,
            num_channels=norm.num_channels,
            positions=positions,
            flat=name in survey.flat,
            weight=survey.weights.get(name),
        )
        facts.append(_Facts(norm.kind, norm.num_groups, note, layer))
    return tuple(facts)


def _not_understood(
    observer: Observer, survey: Survey, facts: tuple[_Facts, ...], twins: Mapping[str, str]
) -> tuple[NotUnderstood, ...]:
    odd = observer.found.odd
    missed = [
        NotUnderstood(
            name=name, why=f"calls {function} itself; make it a module, for a function's groups cannot be replaced"
        )
        for name, function in survey.functional.items()
        if name not in odd
    ]
    missed += [
        NotUnderstood(name=name, why="did not run on these inputs; give inputs that reach it")
        for name in survey.silent_norms
        if name not in twins
    ]
    missed += [
        NotUnderstood(
            name=one.layer.name, why=f"has {'1 value' if size == 1 else f'{size} values'} to normalize: {TOO_SMALL}"
        )
        for one in facts
        if (size := one.layer.num_channels * one.layer.positions) <= 2
    ]
    missed += [NotUnderstood(name=name, why=why) for name, why in survey.odd.items()]
    return (*missed, *(NotUnderstood(name=name, why=why) for name, why in odd.items()))
