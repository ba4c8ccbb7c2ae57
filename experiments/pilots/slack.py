"""How far may the trend fall? The rule's one constant on networks, data and seeds that no study uses.

    python -m experiments.pilots.slack run DATA [--seeds 100,101]
    python -m experiments.pilots.slack lowest DATA     # afterwards, see the end of this text
    python -m experiments.pilots.slack render

A residual network on characters of fonts and a plain deep one on spectrograms of speech (``tasks.py``), trained with
SGD (momentum 0.9, batches of 32, one cosine schedule) for 200 steps and for 2,000. Arms: the rule with slack 1 (as
released), 0.5, 0 and without a limit, the first rule, ``uniform``, one group, 32 groups, 16 channels a group. Each arm
takes the best of its rates in the short trainings, by the mean validation loss over seeds, and keeps it in the long
ones. Arms with the same groups are one training. One JSON line a training in slack.jsonl beside this file; done ones
are skipped. `render` writes the table into docs/choices.md. DATA is a folder with glyphs.npz and voices.npz.

**Stated before any of it ran.** The measure is the validation loss after the last step, relative to slack 1's, mean
over seeds; the four cells are two networks times two lengths. Plans were looked at before (they differ between the
values of the slack in both networks), trainings were not.

- Slack 1 is *refuted* if another value (0, 0.5, no limit) or the first rule has a loss lower by more than 2 % in the
  mean over the four cells and a lower one in both long cells.
- The limit is *idle* if the arm without one is within 1 % of slack 1 in the mean over the cells.
- Slack 0.5 and 1 are *not told apart* if they are within 2 % of each other in the mean.
- Nothing here decides between the rule and habit (32 groups, 16 channels a group, one group) or ``uniform``; they are
  shown, and where one of them is better the document says so.
- An arm whose best rate is the highest or the lowest tried is marked.

**Added when all of that was known, and before its own trainings:** the arm *own error*, in which T may fall by one
standard error of its own (Sen's, of the pass with one group) instead of a constant. It replaces the constant if its
loss is lower than slack 1's by more than 2 % in the mean over the four cells and lower in both long cells.

Changed after the first eleven short trainings of the plain network and before any long one: its rates are 0.01, 0.03
and 0.1 instead of 0.03, 0.1 and 0.3, for the lowest was the best.

Added when all of that was known: in the long trainings of the plain network the arms with the rate 0.01 all have lower
losses than those with 0.03 or 0.1. So `lowest` trains slack 1, *own error* and 32 groups at 0.01 as well. These are not
counted; they tell how much of the difference is the rate's.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from cyclopts import App
from rich.progress import track
from torch import Tensor, nn

import idealgroups as ig
from experiments.common.first_rule import FirstRule
from experiments.common.jsonl import append_records, load_records
from experiments.common.markdown import minus, replace_section, table
from experiments.common.training import make_optimizer, train_epoch
from experiments.study.train import evaluate
from idealgroups.planner import Survey
from idealgroups.results import Plan
from idealgroups.theory.layer import Choice, Layer, Observe
from idealgroups.theory.strategies import Isometric, Strategy, parse_strategy

from .networks import Builder, plain_1d, resnet
from .tasks import Task, glyphs, voices

app = App(help=__doc__)
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "pilots" / "slack.jsonl"
LOWEST = RESULTS.with_name("slack-lowest.jsonl")
DOCUMENT = ROOT / "docs" / "choices.md"
BATCH, SHORT, LONG = 32, 200, 2000
PLAN_IMAGES = 64
RULE = "slack 1"


@dataclass(frozen=True)
class OwnError:
    """The rule, with the standard error of the trend with one group as its slack."""

    closed: ClassVar[bool] = False
    name: ClassVar[str] = "own error"

    def choose(self, layers: Sequence[Layer], observe: Observe[Any]) -> Choice[Any]:
        """Measure the error, and search as :class:`Isometric` does."""
        one = observe({layer.name: 1 for layer in layers}, True)
        return Isometric(slack=one.trend_error).choose(layers, observe)


ARMS: dict[str, Strategy] = {
    RULE: Isometric(),
    "slack 0.5": Isometric(slack=0.5),
    "slack 0": Isometric(slack=0.0),
    "own error": OwnError(),
    "no limit": Isometric(slack=math.inf),
    "first rule": FirstRule(),
    "uniform": parse_strategy("uniform"),
    "one group": parse_strategy("layer"),
    "32 groups": parse_strategy("fixed-32"),
    "group size 16": parse_strategy("group-size-16"),
}


@dataclass(frozen=True)
class Case:
    """A network on a task."""

    read: Callable[[Path], Task]
    build: Builder
    rates: tuple[float, ...]


CASES = {
    "resnet": Case(glyphs, resnet((24, 48), blocks=2), (0.03, 0.1, 0.3)),
    "plain": Case(voices, plain_1d((32, 64), depth=8), (0.01, 0.03, 0.1)),
}


@app.command
def run(data: Path, seeds: str = "100,101", networks: str = ",".join(CASES), only: str = "short,long") -> None:
    """Train what is not trained yet: first all short ones, then the long ones, seed by seed."""
    numbers = tuple(map(int, seeds.split(",")))
    for length in only.split(","):
        for seed in numbers:
            for name in networks.split(","):
                train_case(name, seed, SHORT if length == "short" else LONG, CASES[name].read(data))


@app.command
def lowest(data: Path) -> None:
    """Train some arms of the plain network for long at the lowest rate, whatever was best in the short trainings."""
    done = {json.dumps(record["key"]) for record in load_records(LOWEST)}
    task, rate = CASES["plain"].read(data), CASES["plain"].rates[0]
    for seed in (100, 101):
        torch.manual_seed(seed)
        base = CASES["plain"].build(task.x.shape[1], task.num_classes)
        with Survey(base, task.x[:PLAN_IMAGES], seed=seed, name="plain") as survey:
            for arm in (RULE, "own error", "32 groups"):
                key = ["plain", LONG, seed, arm, rate]
                if json.dumps(key) not in done:
                    plan = survey.plan(ARMS[arm])
                    trained = train(ig.apply(base, plan), task, rate, seed, LONG)
                    append_records(LOWEST, [line(key, plan, *trained)])


def train_case(name: str, seed: int, steps: int, task: Task) -> None:
    """Train every arm of one network and seed for ``steps``."""
    records = load_records(RESULTS)
    done = {json.dumps(record["key"]) for record in records}
    best = best_rates(records, name)
    todo = [
        (arm, rate)
        for arm in ARMS
        for rate in (CASES[name].rates if steps == SHORT else (best[arm],))
        if json.dumps([name, steps, seed, arm, rate]) not in done
    ]
    if not todo:
        return
    torch.manual_seed(seed)
    base = CASES[name].build(task.x.shape[1], task.num_classes)
    trained: dict[Any, tuple[float, float]] = {}
    with Survey(base, task.x[:PLAN_IMAGES], seed=seed, name=name) as survey:
        plans = {arm: survey.plan(ARMS[arm]) for arm in dict.fromkeys(arm for arm, _ in todo)}
    for arm, rate in track(todo, description=f"{name}, seed {seed}, {steps} steps"):
        key = (tuple(plans[arm].num_groups.values()), rate)
        if key not in trained:
            trained[key] = train(ig.apply(base, plans[arm]), task, rate, seed, steps)
        append_records(RESULTS, [line([name, steps, seed, arm, rate], plans[arm], *trained[key])])


def line(key: list[Any], plan: Plan, loss: float, accuracy: float) -> dict[str, Any]:
    return {
        "key": key,
        "val_loss": round(loss, 4) if math.isfinite(loss) else None,
        "val_accuracy": round(accuracy, 4) if math.isfinite(loss) else None,
        "trend": round(plan.trend_after, 2),
        "groups": list(plan.num_groups.values()),
        "group_size": median(plan.group_sizes.values()),
    }


def train(network: nn.Module, task: Task, rate: float, seed: int, steps: int) -> tuple[float, float]:
    """Return the validation loss and accuracy after ``steps`` batches drawn by ``seed``."""
    optimizer = make_optimizer(network, "sgd", rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    epoch = train_epoch(network, batches(task, steps, seed), loss_of, optimizer, schedule)
    return (math.nan, math.nan) if epoch.diverged else evaluate(network, task.x_val, task.y_val)


def loss_of(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(network(x), y)


def batches(task: Task, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """``steps`` batches, the training data in a new random order each time they are through."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(task.x), generator=generator)
        rows, order = order[:BATCH], order[BATCH:]
        yield task.x[rows], task.y[rows]


def losses(records: list[dict[str, Any]]) -> dict[tuple[str, int, str], dict[float, list[dict[str, Any]]]]:
    """Return {(network, steps, arm): {rate: its records}}, those that diverged with an infinite loss."""
    found: dict[tuple[str, int, str], dict[float, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        name, steps, _, arm, rate = record["key"]
        whole = record if record["val_loss"] is not None else record | {"val_loss": math.inf, "val_accuracy": 0.0}
        found[name, steps, arm][rate].append(whole)
    return found


def best_rates(records: list[dict[str, Any]], name: str) -> dict[str, float]:
    """{arm: its rate with the lowest mean loss in the short trainings of this network}."""
    return {
        arm: min(by_rate, key=lambda rate: mean(record["val_loss"] for record in by_rate[rate]))
        for (network, steps, arm), by_rate in losses(records).items()
        if (network, steps) == (name, SHORT)
    }


@app.command
def render() -> None:
    """Write the table into docs/choices.md: the mean loss over seeds of every arm, and each seed of the long ones.

    A long training counts at the rate it was given, which is the best of the short ones that were known then.
    """
    records = load_records(RESULTS)
    found = losses(records)
    rates = {name: best_rates(records, name) for name in CASES}
    rows = []
    for arm in ARMS:
        row, excess = [arm], []
        for name in CASES:
            short, rule = (found[name, SHORT, one][rates[name][one]] for one in (arm, RULE))
            long, long_rule = (
                [record for group in found[name, LONG, one].values() for record in group] for one in (arm, RULE)
            )
            rates_used = sorted({record["key"][4] for record in (*short, *long)})
            trend = minus(f"{mean(record['trend'] for record in short):+.1f}")
            size = mean(record["group_size"] for record in short)
            row += [f"{trend}, {size:.0f}, {' and '.join(f'{rate:g}' for rate in rates_used)}"]
            row += [f"{loss(short):.3f}", f"{loss(long):.3f} ({each_seed(long)})"]
            excess += [math.log(loss(short) / loss(rule)), math.log(loss(long) / loss(long_rule))]
        rows.append((*row, minus(f"{math.exp(mean(excess)) - 1:+.0%}")))
    head = [
        f"{name}{what}" for name in CASES for what in (": T, group size, rate", f", {SHORT}", f", {LONG:,} (each seed)")
    ]
    replace_section(DOCUMENT, "slack", table(("", *head, "mean against slack 1"), rows))


def loss(records: list[dict[str, Any]]) -> float:
    return mean(float(record["val_loss"]) for record in records)


def each_seed(records: list[dict[str, Any]]) -> str:
    return ", ".join(f"{record['val_loss']:.2f}" for record in records)


if __name__ == "__main__":
    app()
