"""What trains better: other caps on the budget, other tolerances, and what to do where no budget is isometric.

    python benchmarks/rule.py run DATA [--networks plain9,resnet14] [--seeds 100,101]
    python benchmarks/rule.py render

A pilot of the rule itself, on validation images and seeds (from 100 on) that no study uses. One JSON line a training in
results/rule.jsonl; done ones are skipped. `render` writes the table into docs/theory.md. DATA is a folder with
cifar10.npz and fashion.npz (Keras-style).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

from cyclopts import App
from rich.progress import track

from idealgroups.network import Network
from idealgroups.sections import replace_section
from idealgroups.solve import Target
from idealgroups.study.config import Arm, Images, Run
from idealgroups.study.data import load
from idealgroups.study.planned import initial_network, plan_inputs
from idealgroups.study.train import TrainJob, train
from idealgroups.theory import conv_gain

app = App(help=__doc__)
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "rule.jsonl"
DOCUMENT = ROOT / "docs" / "theory.md"


@dataclass(frozen=True)
class Variant:
    strategy: str
    target: Target = field(default_factory=Target)


VARIANTS = {
    "isometric, cap 0.25": Variant("isometric", Target(max_budget=0.25)),
    "isometric, cap 0.38": Variant("isometric", Target(max_budget=conv_gain(1))),
    "isometric, cap 0.69": Variant("isometric", Target(max_budget=math.log(2))),
    "isometric, cap 1.2": Variant("isometric", Target(max_budget=1.2)),
    "isometric, cap 1.2, δ = 0": Variant("isometric", Target(max_budget=1.2, tolerance=0)),
    "hybrid, cap 1.2": Variant("hybrid", Target(max_budget=1.2)),
    "block": Variant("block"),
    "c = 2": Variant("channels-2"),
    "c = 4": Variant("channels-4"),
    "c = 8": Variant("channels-8"),
    "fixed-32": Variant("fixed-32"),
    "layer": Variant("layer"),
}
CIFAR = Images("cifar10", 16, 4000, 1000, 200)
SCENES = Images("fashion-scenes", 24, 3000, 500, 200)
ARMS = {
    "plain9": (Arm("plain9", CIFAR, "sgd", 0.0, 64, 3, False), (0.1,)),
    "resnet14": (Arm("resnet14", CIFAR, "sgd", 0.0, 64, 3, False), (0.1,)),
    "plain15": (Arm("plain15", CIFAR, "sgd", 0.0, 64, 3, False), (0.1,)),
    "unet": (Arm("unet", SCENES, "sgd", 0.0, 64, 4, False), (0.1, 0.3)),
}


@app.command
def run(data: Path, networks: str = ",".join(ARMS), seeds: str = "100,101") -> None:
    """Train what is not trained yet."""
    done = {json.dumps(record["key"]) for record in records()}
    for seed in map(int, seeds.split(",")):
        for name in networks.split(","):
            arm, rates = ARMS[name]
            dataset = load(arm.images, data)
            network = Network(initial_network(name, dataset, seed), plan_inputs("data", dataset, seed), seed=seed)
            trained: dict[Any, float] = {}
            for title, variant in track(VARIANTS.items(), description=f"{name}, seed {seed}"):
                keys = {rate: [name, arm.optimizer, seed, title, rate] for rate in rates}
                if all(json.dumps(key) in done for key in keys.values()):
                    continue
                plan = network.plan(variant.strategy, name=name, target=variant.target)
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
                        "median_width": median(site.channels_per_group for site in plan.sites),
                    }
                    with RESULTS.open("a") as file:
                        file.write(json.dumps(line) + "\n")


@app.command
def render() -> None:
    """Write the table into docs/theory.md: the mean over seeds at the best rate, and how many seeds."""
    cells: dict[tuple[str, str], dict[float, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for record in records():
        name, _, _, title, rate = record["key"]
        cells[name, title][rate].append((record["val_loss"], record["trend"]))
    lines = ["| | " + " | ".join(ARMS) + " |", "|---" * (len(ARMS) + 1) + "|"]
    for title in [*VARIANTS, *dict.fromkeys(t for _, t in cells if t not in VARIANTS)]:
        row = [cell(cells[name, title]) for name in ARMS]
        lines.append(f"| {title} | " + " | ".join(row) + " |")
    replace_section(DOCUMENT, "rule", "\n".join(lines))


def cell(by_rate: dict[float, list[tuple[float, float]]]) -> str:
    if not by_rate:
        return "–"
    best = min(by_rate.values(), key=lambda pairs: mean(loss for loss, _ in pairs))
    trend = f"{mean(t for _, t in best):+.1f}".replace("-", "−")
    return f"{mean(loss for loss, _ in best):.3f} (T {trend}; {len(best)})"


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


if __name__ == "__main__":
    app()
