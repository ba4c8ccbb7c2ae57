"""Does isometry forbid small groups where the loss sees every position, or only behind a global pool?

    python -m experiments.pilots.positions run DATA [--networks fcn9,unet-denoise] [--seed 100]
    python -m experiments.pilots.positions render

Segmentation of scenes of MNIST digits at 24 px, prediction of the noise in CIFAR-10 images at 16 px, and a classifier
that flattens its last maps, each trained for three epochs with uniform widths, with the plan, with that of δ = 0.25
and with no floor for the trend at all. Validation loss, seeds that no study uses. One JSON line a training in
positions.jsonl beside this file; done ones are skipped. `render` writes a table to docs/history.md. DATA is a folder
with mnist.npz and cifar10.npz (Keras-style).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from cyclopts import App
from rich.progress import track
from torch import Tensor, nn

import idealgroups as ig
from experiments.common.first_rule import FirstRule, Target
from experiments.common.jsonl import append_records, load_records
from experiments.common.markdown import minus, replace_section, table
from experiments.common.training import make_optimizer, train_epoch
from experiments.study.config import Images
from experiments.study.data import load
from experiments.study.networks import BasicBlock, UNet, conv_norm, plain
from idealgroups.planner import Survey
from idealgroups.theory.strategies import parse_strategy

app = App(help=__doc__)
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "pilots" / "positions.jsonl"
DOCUMENT = ROOT / "docs" / "history.md"
BATCH, EPOCHS = 64, 3

CHOICES = {
    "the plan": FirstRule(),
    "δ = 0.25": FirstRule(target=Target(0.25, 0.25)),
    "no floor": FirstRule(target=Target(math.inf, math.inf)),
    "c = 1": parse_strategy("group-size-1"),
    "c = 4": parse_strategy("group-size-4"),
    "c = 8": parse_strategy("group-size-8"),
    "c = 16": parse_strategy("group-size-16"),
    "layer": parse_strategy("layer"),
}


def fcn(depth: int, width: int) -> Callable[[int, int], nn.Module]:
    """``depth`` convolutions at full resolution, without shortcuts."""

    def build(inside: int, outside: int) -> nn.Module:
        layers: list[nn.Module] = []
        channels = inside
        for _ in range(depth):
            layers += [*conv_norm(channels, width), nn.ReLU()]
            channels = width
        return nn.Sequential(*layers, nn.Conv2d(width, outside, 1))

    return build


def hourglass(inside: int, outside: int) -> nn.Module:
    """A U-Net without its skips, with strides for pools."""
    layers: list[nn.Module] = []
    channels = inside
    for width, step in ((16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (32, 0), (32, 1), (16, 0), (16, 1)):
        if step == 0:
            layers.append(nn.Upsample(scale_factor=2))
        layers += [*conv_norm(channels, width, stride=max(step, 1)), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, outside, 1))


def residual_fcn(inside: int, outside: int) -> nn.Module:
    """Five basic blocks to a quarter of the resolution, and back by interpolation."""
    blocks = (BasicBlock(24, 24, 1), BasicBlock(24, 48, 2), BasicBlock(48, 48, 1), BasicBlock(48, 96, 2))
    return nn.Sequential(
        *conv_norm(inside, 24),
        nn.ReLU(),
        *blocks,
        BasicBlock(96, 96, 1),
        nn.Conv2d(96, outside, 1),
        nn.Upsample(scale_factor=4, mode="bilinear"),
    )


def flat(inside: int, outside: int) -> nn.Module:
    """plain9 with its last 4 × 4 maps flattened, where it has a global pool."""
    body = list(plain((32, 64, 128), 3, pool=False)(inside, outside, 16).children())[:-3]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(128 * 16, outside))


def unet(inside: int, outside: int) -> nn.Module:
    return UNet(inside, outside)


@dataclass(frozen=True)
class Case:
    """A network on a task; ``rates`` by optimizer."""

    task: str
    build: Callable[[int, int], nn.Module]
    rates: Mapping[str, tuple[float, ...]]


BOTH = {"sgd": (0.1, 0.3), "adamw": (0.003, 0.01)}
CASES = {
    "fcn9": Case("scenes", fcn(9, 24), BOTH),
    "fcn24": Case("scenes", fcn(24, 16), {"sgd": (0.03, 0.1), "adamw": (0.003,)}),
    "hourglass": Case("scenes", hourglass, BOTH),
    "residual-fcn": Case("scenes", residual_fcn, BOTH),
    "fcn9-denoise": Case("denoise", fcn(9, 24), BOTH),
    "unet-denoise": Case("denoise", unet, BOTH),
    "flat9": Case("classify", flat, {"sgd": (0.03, 0.1)}),
}
TASKS = {
    "scenes": Images("mnist-scenes", 24, 3000, 500, 100),
    "denoise": Images("cifar10", 16, 4000, 1000, 100),
    "classify": Images("cifar10", 16, 4000, 1000, 100),
}


@dataclass(frozen=True)
class Task:
    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    outputs: int
    loss: Callable[[Tensor, Tensor], Tensor]


def read(name: str, folder: Path) -> Task:
    data = load(TASKS[name], folder)
    if name != "denoise":
        return Task((data.x_train, data.y_train), (data.x_val, data.y_val), data.num_classes, F.cross_entropy)
    generator = torch.Generator().manual_seed(5)

    def noisy(x: Tensor) -> tuple[Tensor, Tensor]:
        level = 0.1 + 1.5 * torch.rand(len(x), 1, 1, 1, generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        return (x + level * noise) / (1 + level**2).sqrt(), noise

    return Task(noisy(data.x_train), noisy(data.x_val), data.in_channels, F.mse_loss)


@app.command
def run(data: Path, networks: str = ",".join(CASES), seed: int = 100) -> None:
    """Train what is not trained yet."""
    done = {json.dumps(record["key"]) for record in load_records(RESULTS)}
    for name in networks.split(","):
        case = CASES[name]
        task = read(case.task, data)
        torch.manual_seed(seed)
        base = case.build(task.train[0].shape[1], task.outputs)
        network = Survey(base, task.train[0][:BATCH], seed=seed, name=name)
        trained: dict[Any, float] = {}
        for title, strategy in track(CHOICES.items(), description=f"{name}, seed {seed}"):
            plan = network.plan(strategy)
            groups = tuple(site.num_groups for site in plan.sites)
            for optimizer, rates in case.rates.items():
                for rate in rates:
                    key = [name, optimizer, seed, title, rate]
                    if json.dumps(key) in done:
                        continue
                    if (groups, optimizer, rate) not in trained:
                        trained[groups, optimizer, rate] = train(ig.apply(base, plan), task, optimizer, rate, seed)
                    line = {
                        "key": key,
                        "val_loss": round(trained[groups, optimizer, rate], 4),
                        "trend": round(plan.trend_after, 2),
                    }
                    append_records(RESULTS, [line])


def train(network: nn.Module, task: Task, name: str, rate: float, seed: int) -> float:
    optimizer = make_optimizer(network, name, rate, weight_decay=0.01 if name == "adamw" else 0.0)
    x, y = task.train
    steps = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps * EPOCHS)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        batches = ((x[chosen], y[chosen]) for chosen in torch.split(order[: steps * BATCH], BATCH))
        train_epoch(network, batches, lambda net, x, y: task.loss(net(x), y), optimizer, schedule)
    network.eval()
    with torch.no_grad():
        return float(task.loss(network(task.val[0]), task.val[1]))


@app.command
def render() -> None:
    """Write the table into docs/history.md: each choice at the best of its rates, the mean over seeds."""
    found: dict[tuple[str, str, str, float], list[tuple[float, float]]] = defaultdict(list)
    for record in load_records(RESULTS):
        name, optimizer, _, title, rate = record["key"]
        found[name, optimizer, title, rate].append((record["val_loss"], record["trend"]))
    rows: dict[tuple[str, str], dict[str, tuple[float, float]]] = defaultdict(dict)
    for (name, optimizer, title, _), pairs in found.items():
        at_rate = (mean(loss for loss, _ in pairs), mean(trend for _, trend in pairs))
        row = rows[name, optimizer]
        row[title] = min(at_rate, row.get(title, at_rate))
    body = []
    for (name, optimizer), row in rows.items():
        lowest = min(row.values())[0]
        cells = [cell(*row[title], lowest) if title in row else "–" for title in CHOICES]
        body.append((f"{name}, {optimizer}", *cells))
    replace_section(DOCUMENT, "positions", table(("network, optimizer", *CHOICES), body))


def cell(loss: float, trend: float, lowest: float) -> str:
    shown = f"**{loss:.3f}**" if loss == lowest else f"{loss:.3f}"
    return f"{shown} ({minus(f'{trend:+.1f}')})"


if __name__ == "__main__":
    app()
