"""From results to comparisons: one :class:`Row` for each strategy of each arm, and tests between rows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median, stdev

import numpy as np

from .choice import best_rates, rate_curve, sweep_winner
from .config import EXISTING, STRATEGIES, SWEEP, SWEEP_MEMBERS, Arm
from .stats import Interval, bootstrap_interval, finite_differences, holm, mean_ranks, permutation_p, rate_range
from .store import Result
from .variants import base

CANDIDATES = ("isometric", "block", "hybrid")
"""The strategies from theory, whose claim the study is about."""

RANKED = (*CANDIDATES, *(name for name in EXISTING if name != "batch"))
"""Strategies that choose numbers of groups without training. Batch norm has none, and the sweep trains."""

REFERENCE = "fixed-32"
SIGNIFICANT = 0.05
NEAR_BEST = 1.05
"""A learning rate works where its validation loss is within 5% of the best."""


@dataclass(frozen=True)
class Row:
    """One strategy in one arm at its best learning rate.

    ``curve``: learning rate → validation loss, mean over the tuning seeds. ``test_loss`` and ``test_error``: by seed,
    at the best rate. ``decades``: width of the range of rates within 5% of the strategy's own best validation loss;
    ``common_decades``: within 5% of the best of all group norms of the arm. ``choice_steps``: what choosing the groups
    cost, in training steps: planning, for ``sweep`` all its tuning runs, and nothing for a rule of thumb.
    """

    arm: Arm
    strategy: str
    learning_rate: float
    val_loss: float
    curve: Mapping[float, float]
    test_loss: Mapping[int, float]
    test_error: Mapping[int, float]
    decades: float
    common_decades: float
    group_size: tuple[float, ...]
    choice_steps: float
    device: str
    note: str = ""

    @property
    def on_edge(self) -> bool:
        """The best rate is the smallest or the largest tried: a better one may lie beyond."""
        return self.learning_rate in (min(self.curve), max(self.curve)) and len(self.curve) > 1

    @property
    def widths(self) -> str:
        """Channels per group over the layers: least, median and most."""
        widths = self.group_size
        if not widths:
            return "–"
        if min(widths) == max(widths):
            return f"{widths[0]:g}"
        return f"{min(widths):g} / {median(widths):g} / {max(widths):g}"


@dataclass(frozen=True)
class Comparison:
    """A strategy against a reference in one arm, paired by seed; a negative difference is a lower test loss."""

    arm: Arm
    strategy: str
    reference: str
    seeds: int
    difference: Interval
    p: float
    adjusted_p: float
    direction: float
    standard_error: float

    @property
    def verdict(self) -> str:
        """better, worse or – (not significant)."""
        if self.adjusted_p >= SIGNIFICANT:
            return "–"
        return "better" if self.direction < 0 else "worse"


def analyse(results: Iterable[Result]) -> dict[Arm, dict[str, Row]]:
    """Rows of every arm, in the order of ``STRATEGIES`` and then by name; ``sweep`` is derived from its members."""
    by_arm: dict[Arm, list[Result]] = defaultdict(list)
    for result in results:
        by_arm[result.run.arm].append(result)
    arms = sorted(by_arm, key=lambda arm: (arm.network, str(arm)))
    return {arm: rows for arm in arms if (rows := _rows(arm, by_arm[arm]))}


def _rows(arm: Arm, results: Sequence[Result]) -> dict[str, Row]:
    best = {strategy: rate for (_, strategy), rate in best_rates(results).items()}
    if not best:
        return {}
    limit = NEAR_BEST * min((rate.val_loss for name, rate in best.items() if name != "batch"), default=0.0)
    rows = {}
    for strategy, rate in best.items():
        own = [result for result in results if result.run.strategy == strategy]
        curve = rate_curve(own)
        at_best = [result for result in own if result.run.learning_rate == rate.learning_rate]
        rows[strategy] = Row(
            arm=arm,
            strategy=strategy,
            learning_rate=rate.learning_rate,
            val_loss=rate.val_loss,
            curve=curve,
            test_loss={result.run.seed: result.test_loss for result in at_best},
            test_error={result.run.seed: 1 - result.test_accuracy for result in at_best},
            decades=rate_range(curve, NEAR_BEST * rate.val_loss),
            common_decades=rate_range(curve, limit),
            group_size=_widths(at_best[0]),
            choice_steps=_planning_steps(own) if base(strategy) in CANDIDATES else 0.0,
            device=at_best[0].record["machine"]["device"],
        )
    winner = sweep_winner(results)
    if winner is not None:
        members = [result for result in results if result.run.strategy in SWEEP_MEMBERS]
        rows[SWEEP] = replace(rows[winner], strategy=SWEEP, choice_steps=_sweep_steps(members), note=f"= {winner}")
    order = {name: index for index, name in enumerate(STRATEGIES)}
    return dict(sorted(rows.items(), key=lambda item: (order.get(item[0], len(order)), len(item[0]), item[0])))


def _widths(result: Result) -> tuple[float, ...]:
    plan = result.record["plan"]
    if plan["groups"] is None:
        return ()
    return tuple(channels // groups for channels, groups in zip(plan["channels"], plan["groups"], strict=True))


def _planning_steps(results: Sequence[Result]) -> float:
    """Planning time over the time of a training step, measured side by side: the mean over seeds."""
    plans = {result.run.seed: result.record["plan"] for result in results}
    ratios = [plan["seconds"] / plan["step_seconds"] for plan in plans.values() if plan["groups"] is not None]
    return fmean(ratios) if ratios else 0.0


def _sweep_steps(members: Sequence[Result]) -> float:
    """Training steps behind the sweep's choice, for one seed: every distinct grouping at every learning rate."""
    seeds = {result.run.seed for result in members}
    per_seed = []
    for seed in sorted(seeds):
        trainings = {r.training: r.record["steps"] for r in members if r.run.seed == seed}
        if {r.run.strategy for r in members if r.run.seed == seed}.issuperset(SWEEP_MEMBERS):
            per_seed.append(sum(trainings.values()))
    return fmean(per_seed) if per_seed else math.nan


def compare(arms: Mapping[Arm, Mapping[str, Row]], strategy: str, reference: str) -> list[Comparison]:
    """``strategy`` against ``reference`` in every arm that has both.

    p values are corrected (Holm) over the arms of one family: the same optimizer and batch size.
    """
    pairs = []
    for arm, rows in arms.items():
        if strategy in rows and reference in rows:
            ours, theirs = rows[strategy].test_loss, rows[reference].test_loss
            seeds = sorted(set(ours) & set(theirs))
            if seeds:
                pairs.append((arm, [_minus(ours[seed], theirs[seed]) for seed in seeds]))
    p_values = [permutation_p(differences) for _, differences in pairs]
    corrected = _corrected([(arm.optimizer, arm.batch_size) for arm, _ in pairs], p_values)
    return [
        Comparison(
            arm=arm,
            strategy=strategy,
            reference=reference,
            seeds=len(differences),
            difference=bootstrap_interval(differences),
            p=p,
            adjusted_p=adjusted,
            direction=float(finite_differences(differences).mean()),
            standard_error=stdev(differences) / math.sqrt(len(differences))
            if len(differences) > 1 and all(map(math.isfinite, differences))
            else math.nan,
        )
        for (arm, differences), p, adjusted in zip(pairs, p_values, corrected, strict=True)
    ]


def _corrected(families: Sequence[object], p_values: Sequence[float]) -> list[float]:
    corrected = [1.0] * len(p_values)
    for family in set(families):
        members = [index for index, own in enumerate(families) if own == family]
        for index, p in zip(members, holm([p_values[index] for index in members]), strict=True):
            corrected[index] = p
    return corrected


def _minus(a: float, b: float) -> float:
    """a - b, and 0 where both diverged."""
    return 0.0 if a == b else a - b


def ranks(arms: Mapping[Arm, Mapping[str, Row]], strategies: Sequence[str] = RANKED) -> dict[str, float]:
    """Mean rank by test loss over the arms that have all of the ``strategies`` present anywhere; best first."""
    present, losses = _side_by_side(arms, strategies)
    if not losses:
        return {}
    means = mean_ranks(np.array(list(losses.values())))
    return dict(sorted(zip(present, map(float, means), strict=True), key=lambda item: item[1]))


@dataclass(frozen=True)
class Regret:
    """By what share a strategy's test loss exceeds that of the best strategy of each arm: mean, and in which the most.

    Both are infinite where a run diverged.
    """

    mean: float
    worst: float
    worst_arm: Arm


def regrets(arms: Mapping[Arm, Mapping[str, Row]], strategies: Sequence[str] = RANKED) -> dict[str, Regret]:
    """Regret of each strategy over the arms that :func:`ranks` counts; the least worst case first."""
    present, losses = _side_by_side(arms, strategies)
    found = {}
    for index, name in enumerate(present if losses else ()):
        excess = {arm: values[index] / min(values) - 1 for arm, values in losses.items() if math.isfinite(min(values))}
        if excess:
            worst = max(excess, key=lambda arm: excess[arm])
            found[name] = Regret(fmean(excess.values()), excess[worst], worst)
    return dict(sorted(found.items(), key=lambda item: item[1].worst))


def _side_by_side(
    arms: Mapping[Arm, Mapping[str, Row]], strategies: Sequence[str]
) -> tuple[list[str], dict[Arm, list[float]]]:
    """Those of the ``strategies`` that ran at all, and their test losses in the arms that have them all.

    Within an arm the mean is over the seeds that all of them have.
    """
    present = [name for name in strategies if any(name in rows for rows in arms.values())]
    losses = {}
    for arm, rows in arms.items():
        if present and all(name in rows for name in present):
            seeds = set.intersection(*(set(rows[name].test_loss) for name in present))
            if seeds:
                losses[arm] = [fmean(rows[name].test_loss[seed] for seed in seeds) for name in present]
    return present, losses


def mean_decades(arms: Mapping[Arm, Mapping[str, Row]], common: bool = False) -> dict[str, float]:
    """Mean range of working learning rates, in decades, over the arms; widest first."""
    values: dict[str, list[float]] = defaultdict(list)
    for rows in arms.values():
        for name in STRATEGIES:
            if name in rows:
                values[name].append(rows[name].common_decades if common else rows[name].decades)
    means = {name: fmean(decades) for name, decades in values.items()}
    return dict(sorted(means.items(), key=lambda item: -item[1]))
