"""What trains better: other caps on the budget, other tolerances, and what to do where no budget is isometric.

    python -m experiments.pilots.rule run DATA [--networks 'plain9;mlp3'] [--seeds 100,101]
    python -m experiments.pilots.rule render

A pilot of the rule itself, on validation images and seeds (from 100 on) that no study uses. One JSON line a training in
rule.jsonl beside this file; done ones are skipped. `render` writes the tables into the documents. DATA is a folder with
cifar10.npz and fashion.npz (Keras-style).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from cyclopts import App
from rich.progress import track

from experiments.common.first_rule import FirstBlock, FirstRule, Target
from experiments.common.jsonl import append_records, load_records
from experiments.common.markdown import minus, replace_section, table
from experiments.study.config import Arm, Images, Run
from experiments.study.data import load
from experiments.study.planned import initial_network, plan_inputs
from experiments.study.train import TrainJob, train
from idealgroups.planner import Survey
from idealgroups.theory.formulas import conv_gain
from idealgroups.theory.strategies import Strategy, parse_strategy

app = App(help=__doc__)
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "pilots" / "rule.jsonl"
DOCUMENTS = {"rule": "history.md", "rule-elements": "choices.md", "rule-floors": "history.md"}
"""{table: the page in docs/ that shows it}."""


LEAST = (4, 16, 32, 64, 128)
VARIANTS: dict[str, Strategy] = {
    "isometric, cap 0.25": FirstRule(target=Target(max_budget=0.25)),
    "isometric, cap 0.38": FirstRule(target=Target(max_budget=conv_gain(1))),
    "isometric, cap 0.69": FirstRule(target=Target(max_budget=math.log(2))),
    "isometric, cap 1.2": FirstRule(target=Target(max_budget=1.2)),
    "isometric, cap 1.2, δ = 0": FirstRule(target=Target(max_budget=1.2, tolerance=0)),
    "hybrid, cap 1.2": FirstRule(hybrid=True, target=Target(max_budget=1.2)),
    "block": FirstBlock(),
    **{f"isometric, cap 0.69, m ≥ {m}": FirstRule(target=Target(min_elements=m, min_flat_elements=m)) for m in LEAST},
    "isometric, cap 0.69, m ≥ 4, δ = ∞": FirstRule(
        target=Target(tolerance=math.inf, min_elements=4, min_flat_elements=4)
    ),
    "c = 2": parse_strategy("group-size-2"),
    "c = 4": parse_strategy("group-size-4"),
    "c = 8": parse_strategy("group-size-8"),
    "c = 16": parse_strategy("group-size-16"),
    "fixed-32": parse_strategy("fixed-32"),
    "layer": parse_strategy("layer"),
}
CIFAR = Images("cifar10", 16, 4000, 1000, 200)
SCENES = Images("fashion-scenes", 24, 3000, 500, 200)
TINY = Images("cifar10", 8, 4000, 1000, 200)
LARGE = Images("cifar10", 48, 4000, 1000, 200)
HABITS = ("c = 2", "c = 4", "c = 8", "fixed-32", "layer")
CAPS = (*(f"isometric, cap {cap}" for cap in ("0.25", "0.38", "0.69", "1.2")), "isometric, cap 1.2, δ = 0")
FLAT = (*(f"isometric, cap 0.69, m ≥ {m}" for m in LEAST), "layer")
ELEMENTS = (*FLAT, "c = 16", "fixed-32")
FLOORS = ("isometric, cap 0.69, m ≥ 4", "isometric, cap 0.69, m ≥ 4, δ = ∞", "c = 4", "c = 16", "fixed-32", "layer")


@dataclass(frozen=True)
class Question:
    """One network, and the variants that are compared on it, each at the best of these rates."""

    arm: Arm
    learning_rates: tuple[float, ...]
    titles: tuple[str, ...]


def sgd(network: str, images: Images, epochs: int = 3) -> Arm:
    return Arm(network, images, "sgd", 0.0, 64, epochs, False)


def adamw(network: str, images: Images, epochs: int = 3) -> Arm:
    return Arm(network, images, "adamw", 0.01, 64, epochs, False)


QUESTIONS = {
    "plain9": Question(sgd("plain9", CIFAR), (0.1,), (*CAPS, "hybrid, cap 1.2", "block", *HABITS)),
    "resnet14": Question(sgd("resnet14", CIFAR), (0.1,), (*CAPS, "hybrid, cap 1.2", "block", *HABITS)),
    "plain15": Question(sgd("plain15", CIFAR), (0.1,), (*CAPS, "hybrid, cap 1.2", "block", *HABITS)),
    "unet": Question(sgd("unet", SCENES, 4), (0.1, 0.3), ("block", *HABITS)),
    "mlp3": Question(sgd("mlp3", CIFAR), (0.003, 0.01, 0.03), ELEMENTS),
    "mlp8": Question(sgd("mlp8", CIFAR), (0.001, 0.003, 0.01, 0.03), ELEMENTS),
    "plain9, 8 px": Question(sgd("plain9", TINY), (0.03, 0.1), ELEMENTS),
    "mlp16": Question(sgd("mlp16", CIFAR), (0.001, 0.003, 0.01, 0.03), FLAT),
    "mlp3-512": Question(sgd("mlp3-512", CIFAR), (0.003, 0.01, 0.03), FLAT),
    "mlp8, AdamW": Question(adamw("mlp8", CIFAR), (0.0001, 0.0003, 0.001, 0.003), FLAT),
    "timm/mobilenetv2_035": Question(sgd("timm/mobilenetv2_035", LARGE), (0.03, 0.1), FLOORS),
    "timm/ghostnet_050": Question(sgd("timm/ghostnet_050", LARGE), (0.03, 0.1), FLOORS),
}


@app.command
def run(data: Path, networks: str = ";".join(QUESTIONS), seeds: str = "100,101") -> None:
    """Train what is not trained yet."""
    done = {json.dumps(record["key"]) for record in load_records(RESULTS)}
    for seed in map(int, seeds.split(",")):
        for name in networks.split(";"):
            arm, rates, titles = QUESTIONS[name].arm, QUESTIONS[name].learning_rates, QUESTIONS[name].titles
            dataset = load(arm.images, data)
            network = Survey(initial_network(arm.network, dataset, seed), plan_inputs("data", dataset, seed), seed=seed)
            trained: dict[Any, float] = {}
            for title in track(titles, description=f"{name}, seed {seed}"):
                keys = {rate: [name, arm.optimizer, seed, title, rate] for rate in rates}
                if all(json.dumps(key) in done for key in keys.values()):
                    continue
                plan = network.plan(VARIANTS[title])
                groups = tuple(site.num_groups for site in plan.sites)
                for rate, key in keys.items():
                    if json.dumps(key) in done:
                        continue
                    if (groups, rate) not in trained:
                        job = TrainJob((Run(arm, title, rate, seed),), plan.to_dict())
                        trained[groups, rate] = train(job, dataset).val_loss
                    line = {
                        "key": key,
                        "val_loss": trained[groups, rate],
                        "trend": plan.trend_after,
                        "budget": plan.budget,
                        "median_width": median(site.group_size for site in plan.sites),
                    }
                    append_records(RESULTS, [line])


SECTIONS = {
    "rule": ("plain9", "resnet14", "plain15", "unet"),
    "rule-elements": ("mlp3", "mlp8", "mlp16", "mlp3-512", "mlp8, AdamW", "plain9, 8 px"),
    "rule-floors": ("timm/ghostnet_050", "timm/mobilenetv2_035"),
}


@app.command
def render() -> None:
    """Write the tables into the documents: the mean over seeds at the best rate, and how many seeds."""
    cells: dict[tuple[str, str], dict[float, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for record in load_records(RESULTS):
        name, _, _, title, rate = record["key"]
        cells[name, title][rate].append((record["val_loss"], record["trend"]))
    for section, names in SECTIONS.items():
        titles = [*VARIANTS, *dict.fromkeys(title for _, title in cells if title not in VARIANTS)]
        rows = [
            (title, *(cell(cells.get((name, title), {})) for name in names))
            for title in titles
            if any((name, title) in cells for name in names)
        ]
        replace_section(ROOT / "docs" / DOCUMENTS[section], section, table(("", *names), rows))


def cell(by_rate: dict[float, list[tuple[float, float]]]) -> str:
    if not by_rate:
        return "–"
    best = min(by_rate.values(), key=lambda pairs: mean(loss for loss, _ in pairs))
    trend = minus(f"{mean(t for _, t in best):+.1f}")
    return f"{mean(loss for loss, _ in best):.3f} (T {trend}; {len(best)})"


if __name__ == "__main__":
    app()
