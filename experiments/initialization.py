"""Does the plan find the width that training found? The trend of log u for uniform widths and for the plan.

    python -m experiments.initialization run [--images cifar10.npz] [--part 128|224|networks|widths]
    python -m experiments.initialization render

`run` appends one JSON line a case to experiments/initialization.jsonl and skips what is there; `render` writes the
tables into docs/results.md and the figure beside it. `--images` adds real photographs (Keras-style .npz), enlarged
bilinearly.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import matplotlib
import numpy as np
import torch
from cyclopts import App
from matplotlib.figure import Figure
from rich.progress import track

from experiments.common.first_plans import FirstPlan, read_first_plan
from experiments.common.first_rule import strategy_named
from experiments.common.markdown import replace_section
from idealgroups.api import measure
from idealgroups.cli.networks import load_model
from idealgroups.planner import Survey
from idealgroups.plots import draw_gradients
from idealgroups.records import Gradients, WeightGradient
from idealgroups.results import Measurement
from idealgroups.synthetic import synthetic

app = App(help=__doc__)
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "initialization.jsonl"
DOCUMENT = ROOT / "docs" / "results.md"
FIGURE = ROOT / "docs" / "initialization.svg"

SEEDS = range(5)
WIDTHS = ("channels-1", "channels-2", "channels-4", "channels-8", "channels-16", "channels-32", "layer")
IMAGENET = {  # top-1 error by width in the GroupNorm paper (Wu & He 2018, table 3), as design notes quote it
    "channels-2": 25.6,
    "channels-4": 24.8,
    "channels-8": 24.3,
    "channels-16": 24.2,
    "channels-32": 24.5,
    "layer": 25.3,
    "channels-1": 28.4,
}
RESNET50 = "torchvision:resnet50"
NETWORKS = (
    "torchvision:resnet18",
    RESNET50,
    "torchvision:densenet121",
    "torchvision:mobilenet_v2",
    "timm:resnetv2_50",
)


@dataclass(frozen=True)
class Case:
    model: str
    strategy: str
    data: str
    px: int
    seed: int
    batch: int = 8


def cases(part: str, images: bool) -> Iterator[Case]:
    kinds = ("pink", "noise", *(["real"] if images else []))
    if part in ("widths", "all"):
        for data in kinds:
            for seed in SEEDS:
                yield from (Case(RESNET50, strategy, data, 128, seed) for strategy in (*WIDTHS, "isometric"))
    if part in ("128", "all"):
        yield from (Case(RESNET50, "isometric", data, 128, seed) for data in kinds for seed in SEEDS)
    if part in ("networks", "all"):
        yield from (Case(model, "isometric", "pink", 128, seed) for model in NETWORKS for seed in SEEDS)
    if part in ("224", "all"):
        yield from (Case(RESNET50, "isometric", data, 224, seed) for data in kinds for seed in SEEDS)


@app.command
def run(part: str = "all", images: Path | None = None) -> None:
    """Measure what is not measured yet."""
    RESULTS.parent.mkdir(exist_ok=True)
    done = {key(record["case"]) for record in load()}
    todo = [case for case in dict.fromkeys(cases(part, images is not None)) if key(asdict(case)) not in done]
    network: tuple[Case, Survey] | None = None
    for case in track(todo, description="measuring"):
        shared = (case.model, case.data, case.px, case.seed)
        if network is None or (network[0].model, network[0].data, network[0].px, network[0].seed) != shared:
            model = load_model(case.model, case.seed).model
            network = case, Survey(model, batch(case, images), seed=case.seed, name=case.model)
        plan = network[1].plan(strategy_named(case.strategy))
        record: dict[str, Any] = {"case": asdict(case), "plan": plan.to_dict(), "machine": platform.machine()}
        if case.px == 128 and case.seed == 0 and case.data == "pink" and case.model == RESNET50:
            measured = measure(load_model(case.model, 0).model, batch(case, images), plan=plan, seed=0)
            record["layers"] = [asdict(layer) for layer in measured.layers]
        with RESULTS.open("a") as file:
            file.write(json.dumps(record, separators=(",", ":")) + "\n")


def batch(case: Case, images: Path | None) -> torch.Tensor:
    if case.data != "real":
        return synthetic((case.batch, 3, case.px, case.px), "pink" if case.data == "pink" else "noise", case.seed)
    assert images is not None
    with np.load(images) as arrays:
        chosen = np.random.default_rng(case.seed).choice(len(arrays["x_test"]), case.batch, replace=False)
        x = torch.from_numpy(arrays["x_test"][chosen].astype(np.float32)).permute(0, 3, 1, 2) / 255
    x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
    return torch.nn.functional.interpolate(x, (case.px, case.px), mode="bilinear", align_corners=False)


def key(case: dict[str, Any]) -> str:
    return json.dumps(case, sort_keys=True)


def load() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


@app.command
def render() -> None:
    """Write the tables and the figure from the results."""
    records = [(Case(**record["case"]), read_first_plan(record["plan"]), record) for record in load()]
    replace_section(DOCUMENT, "isometry-widths", widths_table(records))
    replace_section(DOCUMENT, "isometry-resnet50", resnet50_table(records))
    replace_section(DOCUMENT, "isometry-networks", networks_table(records))
    draw(records)


Records = list[tuple[Case, FirstPlan, dict[str, Any]]]


def widths_table(records: Records) -> str:
    def cell(strategy: str, data: str) -> str:
        trends = [p.trend_after for c, p, _ in records if (c.strategy, c.data, c.px) == (strategy, data, 128)]
        trends = (
            trends
            if strategy != "isometric"
            else [
                p.trend_after
                for c, p, _ in records
                if (c.model, c.strategy, c.data, c.px) == (RESNET50, strategy, data, 128)
            ]
        )
        return f"{mean(trends):+.2f} ± {np.std(trends):.2f}".replace("-", "−") if trends else "–"

    kinds = [d for d in ("pink", "noise", "real") if any(c.data == d for c, _, _ in records)]
    titles = {"pink": "1/f noise", "noise": "white noise", "real": "CIFAR-10 images"}
    lines = ["| channels per group | " + " | ".join(titles[d] for d in kinds) + " | ImageNet top-1 error † |"]
    lines.append("|---" * (len(kinds) + 2) + "|")
    for strategy in (*WIDTHS, "isometric"):
        name = {"layer": "all (layer norm)", "isometric": "**the plan**", "channels-1": "1 (instance norm)"}.get(
            strategy, strategy.removeprefix("channels-")
        )
        lines.append(
            f"| {name} | " + " | ".join(cell(strategy, d) for d in kinds) + f" | {IMAGENET.get(strategy, '')} |"
        )
    return "\n".join(lines)


def resnet50_table(records: Records) -> str:
    lines = [
        "| input | px | seed | ε | trend before | trend after | median per group | range per group | mean G |",
        "|---" * 9 + "|",
    ]
    for case, plan, _ in sorted(records, key=lambda r: (r[0].px, r[0].data, r[0].seed)):
        if case.model != RESNET50 or case.strategy != "isometric":
            continue
        lines.append(f"| {case.data} | {case.px} | {case.seed} | {row(plan)} |")
    return "\n".join(lines)


def networks_table(records: Records) -> str:
    lines = [
        "| network | seed | ε | trend before | trend after | median per group | range per group | mean G |",
        "|---" * 8 + "|",
    ]
    for name in NETWORKS:
        chosen = [
            (c, p) for c, p, _ in records if (c.model, c.strategy, c.data, c.px) == (name, "isometric", "pink", 128)
        ]
        lines += [f"| {name} | {case.seed} | {row(plan)} |" for case, plan in sorted(chosen, key=lambda r: r[0].seed)]
    return "\n".join(lines)


def row(plan: FirstPlan) -> str:
    widths = [site.group_size for site in plan.sites]
    values = (
        f"{plan.budget:.3f}",
        f"{plan.trend_before:+.2f}",
        f"{plan.trend_after:+.2f}",
        f"{median(widths):g}",
        f"{min(widths)}–{max(widths)}",
        f"{mean(site.num_groups for site in plan.sites):.1f}",
    )
    return " | ".join(values).replace("-", "−")


def draw(records: Records) -> None:
    titles = {
        s: {"layer": "layer norm", "channels-1": "c = 1 (instance norm)"}.get(s, s.replace("channels-", "c = "))
        for s in WIDTHS
    }
    titles["isometric"] = "the plan"
    shown = []
    for strategy in ("channels-1", "channels-2", "channels-4", "channels-8", "channels-16", "layer", "isometric"):
        for case, plan, record in records:
            if case.strategy == strategy and "layers" in record:
                layers = tuple(WeightGradient(**layer) for layer in record["layers"])
                shown.append(
                    (
                        titles[strategy],
                        Measurement(model=RESNET50, input=plan.input, seed=0, gradients=Gradients(layers=layers)),
                    )
                )
    assert all(math.isfinite(m.trend) for _, m in shown)
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    draw_gradients(axes, shown, emphasize="the plan")
    axes.set_title("ResNet-50 at initialization, 1/f noise, 128 px: relative gradient over depth", loc="left")
    with matplotlib.rc_context({"svg.hashsalt": "idealgroups"}):
        figure.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    app()
