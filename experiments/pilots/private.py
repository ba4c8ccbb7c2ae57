"""Private training: which quantity at initialization ranks the numbers of groups as DP-SGD does?

    python -m experiments.pilots.private run DATA [--networks resnet,plain] [--seeds 100]
    python -m experiments.pilots.private render

A small ResNet-9 on characters of fonts and 12 plain convolutions on spectrograms of speech (``tasks.py``), trained by
Opacus: 8,000 examples, Poisson batches of 128 in the mean, noise 0.6, every gradient clipped to 1, 100 steps of plain
SGD. Choices: 1, 2, 4, 8, 16 and 32 groups in all layers, and ``isometric`` for ``sgd`` and for ``dp-sgd``, each at
the better of two rates. Beside each: what can be known at initialization (:func:`statistics`). One JSON line a
training in private.jsonl beside this file, one a network in it for the statistics; done ones are skipped. `render`
writes the tables into docs/choices.md. DATA is a folder with glyphs.npz and voices.npz.

**Stated before any of it ran.** A step of DP-SGD is η(m + n): m the mean of the clipped gradients of the samples, n
noise with the same deviation in every element. To first and second order it lowers the loss by
η⟨∇L, m⟩ - η²/2 · (mᵀHm + σ² tr H), at best by ⟨∇L, m⟩² / 2(mᵀHm + σ² tr H). Where the noise outweighs the signal,
and with the Fisher matrix for H (its trace is the mean squared gradient of a sample), this grows with
*gain* = ⟨∇L, m⟩ / (σ·rms of the gradient of a sample). Where every sample is clipped, m is the mean of unit vectors,
and gain is about *alignment* squared: ‖m‖, how much the gradients of the samples point the same way. So the theory
predicts that alignment ranks the numbers of groups. Candidates, all measured at initialization:

- ``gain`` and ``alignment`` (need labels, so public data);
- ``kernel``, the same without labels: the standard deviation of the cosines between the gradients of two samples, for
  one random projection of the output. Cosines that are all alike tell no sample from another (one group), cosines that
  are all zero carry nothing from one sample to the next (instance norm);
- ``rank``, the effective number of directions of these gradients, (tr K)² / ‖K‖²;
- ``evenness v``, minus |T| of log ‖g‖/√numel: what ``optimizer="dp-sgd"`` balances today; ``evenness u``, the same of
  log u; ``T of v`` itself, for large groups won in the first pilot;
- ``norm``, the mean norm of a sample's gradient (what clipping takes), and ``regular``, minus its spread over samples.

A candidate is *the criterion* if its Spearman correlation with the validation accuracy is at least 0.8 in each of the
two networks and the number it ranks first is within 1.5 points of the best choice in each. If none is, none is found.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from cyclopts import App
from rich.progress import track
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.data import DataLoader, TensorDataset

import idealgroups as ig
from experiments.common.jsonl import append_records, load_records
from experiments.common.markdown import minus, replace_section, table
from experiments.study.train import evaluate
from idealgroups.planner import Survey
from idealgroups.results import Plan

from .networks import Builder, plain_1d, resnet9
from .tasks import Task, glyphs, voices

app = App(help=__doc__)
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "pilots" / "private.jsonl"
DOCUMENT = ROOT / "docs" / "choices.md"
TRAIN, BATCH, STEPS = 8000, 128, 100
CLIP, NOISE = 1.0, 0.6
SAMPLES, CHUNK = 128, 64
"""Of each of the two halves that the statistics are made of, and of those whose gradients are made together."""

UNIFORM = tuple(f"fixed-{number}" for number in (1, 2, 4, 8, 16, 32))
CHOICES = (*UNIFORM, "isometric, sgd", "isometric, dp-sgd")


@dataclass(frozen=True)
class Case:
    """A network on a task."""

    read: Callable[..., Task]
    build: Builder
    rates: tuple[float, ...]


CASES = {
    "resnet": Case(glyphs, resnet9, (0.5, 2.0)),
    "plain": Case(voices, plain_1d((32, 64), depth=6), (0.5, 2.0)),
}


@app.command
def run(data: Path, networks: str = ",".join(CASES), seeds: str = "100") -> None:
    """Measure and train what is not done yet."""
    for seed in map(int, seeds.split(",")):
        for name in networks.split(","):
            run_case(name, seed, CASES[name].read(data, train=TRAIN))


def run_case(name: str, seed: int, task: Task) -> None:
    done = {json.dumps(record["key"]) for record in load_records(RESULTS)}
    torch.manual_seed(seed)
    base = CASES[name].build(task.x.shape[1], task.num_classes)
    plans = plan_all(base, task, seed, name)
    trained: dict[Any, float] = {}
    for choice in track(CHOICES, description=f"{name}, seed {seed}"):
        key: list[Any] = [name, seed, choice, "statistics"]
        network = ig.apply(base, plans[choice])
        if json.dumps(key) not in done:
            append_records(RESULTS, [{"key": key, **statistics(network, task), **lines(plans[choice])}])
        groups = tuple(plans[choice].num_groups.values())
        for rate in CASES[name].rates:
            key = [name, seed, choice, rate]
            if json.dumps(key) in done:
                continue
            if (groups, rate) not in trained:
                trained[groups, rate] = train(ig.apply(base, plans[choice]), task, rate, seed)
            append_records(RESULTS, [{"key": key, "accuracy": trained[groups, rate], "groups": groups}])


def plan_all(base: nn.Module, task: Task, seed: int, name: str) -> dict[str, Plan]:
    x = task.x[:64]
    with Survey(base, x, seed=seed, name=name) as survey:
        plans = {choice: survey.plan(choice) for choice in UNIFORM}
        plans["isometric, sgd"] = survey.plan()
    with Survey(base, x, seed=seed, name=name, optimizer="dp-sgd") as survey:
        plans["isometric, dp-sgd"] = survey.plan()
    return plans


def lines(plan: Plan) -> dict[str, float]:
    """Return T of log u and of log v."""
    assert plan.after is not None
    u, v = (replace(plan.after, optimizer=optimizer).trend for optimizer in ("sgd", "dp-sgd"))
    return {"trend_u": u, "trend_v": v}


def statistics(network: nn.Module, task: Task) -> dict[str, float]:
    """Return what the gradients of single samples have in common before the first step, with labels and without."""
    x, y = task.x[: 2 * SAMPLES], task.y[: 2 * SAMPLES]
    direction = torch.randn(task.num_classes, generator=torch.Generator().manual_seed(1))
    direction /= direction.norm()
    labelled = sample_gradients(network, x, y, lambda output, label: F.cross_entropy(output, label))
    free = sample_gradients(network, x, y, lambda output, label: output @ direction)
    norms = labelled.norm(dim=1)
    clipped = labelled * (CLIP / norms.clamp_min(CLIP))[:, None]
    unit = labelled / norms[:, None]
    halves = [torch.split(part, SAMPLES) for part in (labelled, clipped, unit)]
    (g1, g2), (m1, m2), (a1, a2) = ((first.mean(0), second.mean(0)) for first, second in halves)
    unit_free = free / free.norm(dim=1, keepdim=True)
    cosines = unit_free @ unit_free.T
    off = cosines[~torch.eye(len(cosines), dtype=torch.bool)]
    rms = float(norms.square().mean().sqrt())
    return {
        "gain": max(float(g1 @ m2 + g2 @ m1) / 2, 0.0) / rms,
        "alignment": math.sqrt(max(float(a1 @ a2), 0.0)),
        "signal": math.sqrt(max(float(m1 @ m2), 0.0)),
        "kernel": float(off.std()),
        "cosine": float(off.mean()),
        "rank": len(cosines) ** 2 / float(cosines.square().sum()),
        "norm": float(norms.mean()),
        "spread": float(norms.std() / norms.mean()),
    }


def sample_gradients(network: nn.Module, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the gradient of every sample by itself, (N, number of parameters)."""
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def loss_of(values: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
        return loss(functional_call(network, values, (one[None],))[0], label)

    per_sample = vmap(grad(loss_of), in_dims=(None, 0, 0))
    chunks = []
    for part, labels in zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True):
        gradients = per_sample(parameters, part, labels)
        chunks.append(torch.cat([gradients[name].flatten(1) for name in parameters], 1))
    return torch.cat(chunks)


def train(network: nn.Module, task: Task, rate: float, seed: int) -> float:
    """Return the validation accuracy after ``STEPS`` private steps."""
    from opacus import PrivacyEngine

    torch.manual_seed(seed)
    loader = DataLoader(
        TensorDataset(task.x, task.y), BATCH, generator=torch.Generator().manual_seed(seed), shuffle=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network, optimizer, loader = PrivacyEngine().make_private(
            module=network.train(),
            optimizer=torch.optim.SGD(network.parameters(), rate),
            data_loader=loader,
            noise_multiplier=NOISE,
            max_grad_norm=CLIP,
            noise_generator=torch.Generator().manual_seed(seed),
        )
        steps = 0
        while steps < STEPS:
            for x, y in loader:
                optimizer.zero_grad()
                F.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                steps += 1
                if steps == STEPS:
                    break
    return round(evaluate(network, task.x_val, task.y_val)[1], 4)


CANDIDATES: dict[str, Callable[[dict[str, Any]], float]] = {
    "gain": lambda found: found["gain"],
    "alignment": lambda found: found["alignment"],
    "kernel": lambda found: found["kernel"],
    "rank": lambda found: found["rank"],
    "evenness v": lambda found: -abs(found["trend_v"]),
    "evenness u": lambda found: -abs(found["trend_u"]),
    "T of v": lambda found: found["trend_v"],
    "norm": lambda found: found["norm"],
    "regular": lambda found: -found["spread"],
}


@app.command
def render() -> None:
    """Write the two tables into docs/choices.md: the choices, and how the candidates rank them."""
    measured: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    trained: dict[tuple[str, str], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    groups: dict[tuple[str, str], tuple[int, ...]] = {}
    for record in load_records(RESULTS):
        name, _, choice, what = record["key"]
        if what == "statistics":
            measured[name, choice].append(record)
        else:
            trained[name, choice][what].append(record["accuracy"])
            groups[name, choice] = tuple(record["groups"])
    first = {(key[0], chosen): key for key, chosen in reversed(groups.items())}
    accuracy = {key: max(mean(values) for values in by_rate.values()) for key, by_rate in trained.items()}
    values = {
        key: {title: mean(candidate(record) for record in records) for title, candidate in CANDIDATES.items()}
        for key, records in measured.items()
    }
    names = [name for name in CASES if any(key[0] == name for key in accuracy)]
    rows = [
        (f"{name}, {choice}", f"{accuracy[name, choice]:.1%}", *map(shown, values[name, choice].values()))
        for name in names
        for choice in CHOICES
        if (name, choice) in accuracy
    ]
    replace_section(DOCUMENT, "private", table(("", "accuracy", *CANDIDATES), rows))
    rows = []
    for title in CANDIDATES:
        row = [title]
        for name in names:
            choices = [choice for choice in CHOICES if (name, choice) in first.values()]  # the same groups count once
            ranked = [values[name, choice][title] for choice in choices]
            reached = [accuracy[name, choice] for choice in choices]
            picked = reached[max(range(len(choices)), key=ranked.__getitem__)]
            row += [number(float(spearmanr(ranked, reached).statistic)), f"{100 * (max(reached) - picked):.1f}"]
        rows.append(tuple(row))
    head = [part for name in names for part in (f"{name}: Spearman", f"{name}: points lost by its first")]
    replace_section(DOCUMENT, "private-criteria", table(("candidate", *head), rows))


def shown(value: float) -> str:
    return minus(f"{value:.3f}" if abs(value) < 0.2 else f"{value:.2f}")


def number(value: float) -> str:
    return minus(f"{value:.2f}")


if __name__ == "__main__":
    app()
