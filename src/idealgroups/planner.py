"""A network that has been looked at: what its layers are, and the plan that each strategy makes for them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from .conversion.matching import Patterns
from .errors import IdealGroupsError, NoNormalizationError
from .measuring.loss import Loss
from .measuring.observation import Observation, Survey
from .measuring.observer import Observer
from .progress import Steps
from .results import NotUnderstood, Plan, Site
from .sandbox.calling import describe
from .theory.formulas import MIN_GROUP_ELEMENTS
from .theory.solve import MAX_HALVINGS, MAX_STEPS, Groups, Solution, Target, solve
from .theory.strategies import (
    SOLVED,
    block_ideal_groups,
    habit,
    ideal_groups,
    largest_divisor,
    layer_budget,
    safe_groups,
)

MAX_PASSES = MAX_HALVINGS + MAX_STEPS + 4
"""What a progress bar counts up to; most solves end sooner."""


@dataclass(frozen=True)
class _Facts:
    """What is known of one layer before its groups are chosen."""

    name: str
    kind: str
    num_channels: int
    positions: int
    flat: bool
    groups_before: int | None
    ratio: float
    note: str


@dataclass(frozen=True)
class _Choice:
    """The groups of every layer, a note where the strategy wanted others, and what was measured with them."""

    groups: Groups
    ideals: Mapping[str, float]
    notes: Mapping[str, str]
    after: Observation
    solution: Solution[Observation] | None = None

    def site(self, facts: _Facts) -> Site:
        name, groups = facts.name, self.groups[facts.name]
        curve = self.after.curves[name]
        return Site(
            name=name,
            kind=facts.kind,
            num_channels=facts.num_channels,
            positions=facts.positions,
            groups_before=facts.groups_before,
            ideal=self.ideals[name],
            num_groups=groups,
            gain=float(curve.gain[curve.at(groups)]),
            note="; ".join(part for part in (facts.note, self.notes[name]) if part),
        )


class Network:
    """A model surveyed once, for which several plans can be made. ``before``: what was measured on it as it is.

    ``patterns``: which layers are planned; the others stay as they are while these are measured.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *,
        loss: Loss | None = None,
        seed: int = 0,
        patterns: Patterns = Patterns(),  # noqa: B008 — frozen
    ) -> None:
        started = time.perf_counter()
        self._observer = Observer(model, example_inputs, loss, seed, patterns.why_not)
        self._seed = seed
        self._input = describe(example_inputs)
        if not self._observer.norms:
            self._refuse_without_norms(model)
        patterns.check(self._observer.found.names)
        survey, self.before = self._observer.survey()
        facts = _facts(self._observer, survey)
        self._facts = tuple(one for one in facts if patterns.why_not(one.name) is None)
        if facts and not self._facts:
            raise IdealGroupsError("include= and exclude= leave no normalization layer to plan; change the patterns.")
        if not facts:
            odd = "".join(f", and {name} {why}" for name, why in list(survey.odd.items())[:1])
            raise IdealGroupsError(
                f"none of the {len(self._observer.norms)} normalization layers of {type(model).__name__} ran on these "
                f"inputs{odd}; give example inputs that reach them."
            )
        self._missed = _not_understood(self._observer, survey)
        self._survey_seconds = time.perf_counter() - started

    def close(self) -> None:
        """Free the memory of the copy at once; no plan can be made any more."""
        self._observer.close()

    def plan(
        self,
        strategy: str,
        *,
        name: str,
        target: Target = Target(),  # noqa: B008 — frozen
        advance: Steps = lambda: None,
    ) -> Plan:
        """The plan of one strategy, measured; ``target`` is for studies of the rule itself."""
        started = time.perf_counter()

        def observe(groups: Groups) -> Observation:
            seen = self._observer.observe(groups, with_curves=True)
            advance()
            return seen

        choice = (
            self._solved(strategy, target, observe) if strategy in SOLVED else self._by_rule(strategy, target, observe)
        )
        solution = choice.solution
        return Plan(
            model=name,
            strategy=strategy,
            input=self._input,
            seed=self._seed,
            budget=solution.point.budget if solution else None,
            trend_before=self.before.trend,
            trend_after=choice.after.trend,
            spread_before=self.before.spread,
            spread_after=choice.after.spread,
            seconds=round(time.perf_counter() - started + self._survey_seconds, 3),
            sites=tuple(choice.site(facts) for facts in self._facts),
            not_understood=self._missed,
            pooled=solution.pooled if solution else None,
            tolerance=solution.tolerance if solution else None,
            lowest_trend=solution.lowest_trend if solution else None,
        )

    def _solved(self, strategy: str, target: Target, observe: Callable[[Groups], Observation]) -> _Choice:
        """Strategies with a budget: as many groups as isometry allows."""
        ratios = {facts.name: facts.ratio for facts in self._facts}

        def budget_of(layer: str, epsilon: float) -> float:
            return layer_budget(strategy, epsilon, ratios[layer])

        # At -max(log r) the hybrid rule leaves no layer any budget.
        lowest = 0.0 if strategy == "isometric" else min(0.0, *(-math.log(ratio) for ratio in ratios.values()))
        solution = solve(observe, budget_of, lowest, dict.fromkeys(ratios, 1), target)
        point = solution.point
        ideals = {
            name: ideal_groups(curve, budget_of(name, point.budget), target.least(curve.flat))
            for name, curve in point.curves.items()
            if name in ratios
        }
        notes = {f.name: safe_groups(f.num_channels, f.positions, point.groups[f.name])[1] for f in self._facts}
        return _Choice(point.groups, ideals, notes, point.measured, solution)

    def _by_rule(self, strategy: str, target: Target, observe: Callable[[Groups], Observation]) -> _Choice:
        """Strategies that need no measurement; they are measured all the same."""
        rule = habit(strategy)
        ideals, groups, notes = {}, {}, {}
        for facts in self._facts:
            name, channels, positions = facts.name, facts.num_channels, facts.positions
            ideals[name] = block_ideal_groups(channels, positions, facts.ratio) if rule is None else rule(channels)
            wanted = largest_divisor(channels, ideals[name])
            least = target.least(facts.flat) if rule is None else MIN_GROUP_ELEMENTS
            groups[name], notes[name] = safe_groups(channels, positions, wanted, least)
        return _Choice(groups, ideals, notes, observe(groups))

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
        note = "γ = 0 measured as 1" if f"{name}.weight" in observer.woken else ""
        facts.append(
            _Facts(
                name,
                norm.kind,
                norm.num_channels,
                positions,
                name in survey.flat,
                norm.num_groups,
                survey.ratios[name],
                note,
            )
        )
    return tuple(facts)


def _not_understood(observer: Observer, survey: Survey) -> tuple[NotUnderstood, ...]:
    odd = observer.found.odd
    missed = [
        NotUnderstood(name, f"calls {function} itself; make it a module, for a function's groups cannot be replaced")
        for name, function in survey.functional.items()
        if name not in odd
    ]
    missed += [
        NotUnderstood(name, "did not run on these inputs, so its groups cannot be measured")
        for name in survey.silent_norms
    ]
    missed += [NotUnderstood(name, why) for name, why in survey.odd.items()]
    return (*missed, *(NotUnderstood(name, why) for name, why in odd.items()))
