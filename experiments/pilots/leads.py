"""Two leads that could replace the rule: the effective rank of the samples' gradients, and budgets by leverage.

    python -m experiments.pilots.leads run DATA
    python -m experiments.pilots.leads render

Networks, data, seeds, rates and the other arms are those of ``slack.py``, whose trainings (``slack.jsonl``) are used
again. One JSON line a training or measurement in leads.jsonl beside this file; done ones are skipped. `render` writes
the two tables into docs/choices.md. DATA is a folder with glyphs.npz and voices.npz.

**Stated before any of it ran.**

*Effective rank.* Isometry in the strict sense says that the map from samples to gradients keeps distances. Then the
gradients of N samples, about their mean, point in N - 1 directions alike: with K their Gram matrix, the effective rank
(tr K)² / ‖K‖² is N - 1. It needs no line, no slack and no labels (the loss is a random projection of the output). So
the more of it the better. It is *a criterion* if its Spearman correlation with the validation loss over the arms with
different groups is -0.8 or less in each of the four cells (two networks, 200 and 2,000 steps), and the arm that it
ranks first is within 2 % of the best in each. It would be simpler than the rule, so it need not be better.

*Budgets by leverage.* A gain at one layer raises the gradients of all weights before it. In the middle of the network
that changes the slope of the line most, at its ends not at all: a step at the share p of the depth changes the
least-squares rise by 6p(1 - p) of its height, whose mean is one. So the curve of every layer is multiplied by 6p(1 - p)
before one budget is drawn through all of them; the slack stays 1. Layers at the ends get more groups, those in the
middle fewer. It is not simpler, so it must be better: a validation loss lower than slack 1's by more than 2 % in the
mean over the four cells, and lower in both long ones. In the residual network both rules end at two channels a group
in nearly every layer, so the plain network decides.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

import torch
from cyclopts import App
from scipy.stats import spearmanr
from torch import Tensor, nn

import idealgroups as ig
from experiments.common.jsonl import append_records, load_records
from experiments.common.markdown import minus, replace_section, table
from idealgroups.planner import Survey
from idealgroups.theory.grouping import ideal_groups
from idealgroups.theory.layer import Choice, Layer, M, Observe
from idealgroups.theory.solve import Budgets, solve

from .private import sample_gradients
from .slack import CASES, DOCUMENT, LONG, PLAN_IMAGES, RULE, SHORT, best_rates, line, loss, losses, train
from .slack import RESULTS as SLACK_RESULTS
from .tasks import Task

app = App(help=__doc__)
RESULTS = Path(__file__).with_suffix(".jsonl")
SEEDS = (100, 101)
SAMPLES = 128
LEVERAGE = "budgets by leverage"
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def leverage(position: float) -> float:
    """By how much a step of one at the share ``position`` of the depth changes the least-squares rise; its mean is one.

    >>> leverage(0.5), leverage(0.0)
    (1.5, 0.0)
    """
    return 6 * position * (1 - position)


@dataclasses.dataclass(frozen=True)
class ByLeverage:
    """The rule with one budget for the gains times their leverage."""

    closed: ClassVar[bool] = False
    name: ClassVar[str] = LEVERAGE

    def choose(self, layers: Sequence[Layer], observe: Observe[M]) -> Choice[M]:
        """Search for the largest budget."""
        one = observe({layer.name: 1 for layer in layers}, True)
        curves = {}
        for i, layer in enumerate(layers):
            factor, curve = leverage((i + 0.5) / len(layers)), one.curves[layer.name]
            curves[layer.name] = dataclasses.replace(
                curve, amplification=factor * curve.amplification, projection=factor * curve.projection
            )
        family = Budgets.of(curves)
        solution = solve(observe, family, one)
        budget = float(family.values[solution.index])
        return Choice(
            groups=family.groups(solution.index),
            ideals={name: ideal_groups(curve, budget) for name, curve in curves.items()},
            budget=budget,
            lowest_trend=solution.lowest_trend,
            measured=solution.measured,
        )


def effective_rank(gradients: Tensor) -> float:
    """(tr K)² / ‖K‖² of the Gram matrix of ``gradients``, (N, P), about their mean: between 1 and N - 1.

    >>> round(effective_rank(torch.eye(4)), 3)
    3.0
    """
    centred = (gradients - gradients.mean(0)).double()
    gram = centred @ centred.T
    return float(gram.trace() ** 2 / gram.square().sum())


@app.command
def run(data: Path) -> None:
    """Measure the rank of every arm, and train the new one where it is not trained."""
    for name, case in CASES.items():
        task = case.read(data)
        for seed in SEEDS:
            measure_ranks(name, seed, task)
            for steps in (SHORT, LONG):
                train_leverage(name, seed, steps, task)


def measure_ranks(name: str, seed: int, task: Task) -> None:
    """The effective rank of every arm of ``slack.py``, before the first step."""
    done = {json.dumps(record["key"]) for record in load_records(RESULTS)}
    torch.manual_seed(seed)
    base = CASES[name].build(task.x.shape[1], task.num_classes)
    direction = torch.randn(task.num_classes, generator=torch.Generator().manual_seed(1))
    layers = [name for name, module in base.named_modules() if isinstance(module, NORMS)]
    known: dict[tuple[int, ...], float] = {}
    for arm, groups in arms(name, seed).items():
        key = [name, seed, arm, "rank"]
        if json.dumps(key) in done:
            continue
        if groups not in known:
            network = ig.set_groups(copy.deepcopy(base), settings(layers, groups))
            x, y = task.x[:SAMPLES], task.y[:SAMPLES]
            known[groups] = effective_rank(sample_gradients(network, x, y, lambda output, _: output @ direction))
        append_records(RESULTS, [{"key": key, "rank": round(known[groups], 2), "groups": groups}])


def arms(name: str, seed: int) -> dict[str, tuple[int, ...]]:
    """{arm of slack.py: its groups} in this network with this seed."""
    found = {}
    for record in load_records(SLACK_RESULTS):
        network, _, number, arm, _ = record["key"]
        if (network, number) == (name, seed):
            found[arm] = tuple(record["groups"])
    return found


def settings(layers: Sequence[str], groups: Sequence[int]) -> dict[str, Any]:
    """What ``ig.groups`` says of a network with these groups."""
    return {name: {"num_groups": number, "eps": 1e-5} for name, number in zip(layers, groups, strict=True)}


def train_leverage(name: str, seed: int, steps: int, task: Task) -> None:
    """Train ``LEVERAGE`` at every rate for ``SHORT`` steps, and at the best of them for ``LONG``."""
    done = {json.dumps(record["key"]) for record in load_records(RESULTS)}
    rates = CASES[name].rates if steps == SHORT else (best_rates(trainings(), name)[LEVERAGE],)
    todo = [rate for rate in rates if json.dumps([name, steps, seed, LEVERAGE, rate]) not in done]
    if not todo:
        return
    torch.manual_seed(seed)
    base = CASES[name].build(task.x.shape[1], task.num_classes)
    with Survey(base, task.x[:PLAN_IMAGES], seed=seed, name=name) as survey:
        plan = survey.plan(ByLeverage())
    known = {(tuple(record["groups"]), *record["key"][:3], record["key"][4]): record for record in trainings()}
    for rate in todo:
        same = known.get((tuple(plan.num_groups.values()), name, steps, seed, rate))
        key = [name, steps, seed, LEVERAGE, rate]
        made = same | {"key": key} if same else line(key, plan, *train(ig.apply(base, plan), task, rate, seed, steps))
        append_records(RESULTS, [made])


def trainings() -> list[dict[str, Any]]:
    """All trainings of slack.py, and those of this pilot."""
    return load_records(SLACK_RESULTS) + [record for record in load_records(RESULTS) if "rank" not in record]


@app.command
def render() -> None:
    """Write both tables into docs/choices.md."""
    ranks: dict[tuple[str, str], list[float]] = {}
    for record in load_records(RESULTS):
        if "rank" in record:
            name, _, arm, _ = record["key"]
            ranks.setdefault((name, arm), []).append(record["rank"])
    found = losses(trainings())

    def reached(name: str, steps: int, arm: str) -> float:
        by_rate = found[name, steps, arm]
        if steps == SHORT:
            return min(loss(records) for records in by_rate.values())
        return loss([record for records in by_rate.values() for record in records])

    rows = []
    for name in CASES:
        groups = {arm: tuple(arms(name, seed)[arm] for seed in SEEDS) for arm in arms(name, SEEDS[0])}
        distinct = {chosen: arm for arm, chosen in reversed(groups.items())}
        names = [arm for arm in groups if arm in distinct.values()]
        rank = {arm: mean(ranks[name, arm]) for arm in names}
        first = max(names, key=lambda arm: rank[arm])
        for steps in (SHORT, LONG):
            value = {arm: reached(name, steps, arm) for arm in names}
            rho = float(spearmanr([rank[arm] for arm in names], [value[arm] for arm in names]).statistic)
            lost = value[first] / min(value.values()) - 1
            shown = ", ".join(f"{arm} {rank[arm]:.1f}" for arm in sorted(names, key=lambda arm: -rank[arm]))
            rows.append((f"{name}, {steps:,} steps", minus(f"{rho:+.2f}"), first, f"{lost:.0%}", shown))
    head = ("", "Spearman with the loss", "ranked first", "its loss above the best", "effective rank of each")
    replace_section(DOCUMENT, "leads-rank", table(head, rows))
    compared, excess = [], []
    for name in CASES:
        for steps in (SHORT, LONG):
            ours, rule = reached(name, steps, LEVERAGE), reached(name, steps, RULE)
            excess.append(math.log(ours / rule))
            compared.append(
                (f"{name}, {steps:,} steps", f"{rule:.3f}", f"{ours:.3f}", minus(f"{ours / rule - 1:+.1%}"))
            )
    compared.append(("mean", "", "", minus(f"{math.exp(mean(excess)) - 1:+.1%}")))
    head_two = ("", "one budget for all (slack 1)", LEVERAGE, "difference")
    replace_section(DOCUMENT, "leads-leverage", table(head_two, compared))


if __name__ == "__main__":
    app()
