"""Does the plan find the width that training found? The trend of log u for uniform widths and for the plan.

    python -m experiments.initialization run [--images cifar10.npz] [--part 128|224|networks|widths]
    python -m experiments.initialization render

`run` appends one JSON line a case to initialization.jsonl beside this file and skips what is there; `render` writes the
tables into initialization.md and the figure into docs/. `--images` adds real photographs (Keras-style .npz), enlarged
bilinearly.
"""

from __future__ import annotations

import json
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
from experiments.common.jsonl import append_records, load_records
from experiments.common.markdown import minus, replace_section, table
from idealgroups.api import measure
from idealgroups.cli.networks import load_model
from idealgroups.pictures.style import AFTER, BEFORE, FAINT, INK, STYLE
from idealgroups.planner import Survey
from idealgroups.synthetic import synthetic

app = App(help=__doc__)
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "initialization.jsonl"
DOCUMENT = ROOT / "experiments" / "initialization.md"
FIGURE = ROOT / "docs" / "initialization.svg"

SEEDS = range(5)
WIDTHS = ("channels-1", "channels-2", "channels-4", "channels-8", "channels-16", "channels-32", "layer")
IMAGENET = {  # top-1 error by group size, ResNet-50, Wu & He 2018, Table 3; quoted, not verified here
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
    done = {key(record["case"]) for record in load_records(RESULTS)}
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
        append_records(RESULTS, [record])


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


@app.command
def render() -> None:
    """Write the tables and the figure from the results."""
    records = [(Case(**record["case"]), read_first_plan(record["plan"]), record) for record in load_records(RESULTS)]
    replace_section(DOCUMENT, "isometry-widths", widths_table(records))
    replace_section(DOCUMENT, "isometry-resnet50", resnet50_table(records))
    replace_section(DOCUMENT, "isometry-networks", networks_table(records))
    draw(records)


Records = list[tuple[Case, FirstPlan, dict[str, Any]]]


def widths_table(records: Records) -> str:
    def cell(strategy: str, data: str) -> str:
        asked = (RESNET50, strategy, data, 128)
        trends = [p.trend_after for c, p, _ in records if (c.model, c.strategy, c.data, c.px) == asked]
        return minus(f"{mean(trends):+.2f} ± {np.std(trends):.2f}") if trends else "–"

    kinds = [d for d in ("pink", "noise", "real") if any(c.data == d for c, _, _ in records)]
    titles = {"pink": "1/f noise", "noise": "white noise", "real": "CIFAR-10 images"}
    names = {"layer": "all (layer norm)", "isometric": "**the plan**", "channels-1": "1 (instance norm)"}
    rows = [
        (
            names.get(strategy, strategy.removeprefix("channels-")),
            *(cell(strategy, data) for data in kinds),
            IMAGENET.get(strategy, ""),
        )
        for strategy in (*WIDTHS, "isometric")
    ]
    return table(("group size", *(titles[data] for data in kinds), "ImageNet top-1 error †"), rows)


PLAN_COLUMNS = ("ε", "trend before", "trend after", "median group size", "range", "mean groups")


def resnet50_table(records: Records) -> str:
    rows = [
        (case.data, case.px, case.seed, *plan_cells(plan))
        for case, plan, _ in sorted(records, key=lambda r: (r[0].px, r[0].data, r[0].seed))
        if (case.model, case.strategy) == (RESNET50, "isometric")
    ]
    return table(("input", "px", "seed", *PLAN_COLUMNS), rows)


def networks_table(records: Records) -> str:
    rows = [
        (name, case.seed, *plan_cells(plan))
        for name in NETWORKS
        for case, plan, _ in sorted(records, key=lambda r: r[0].seed)
        if (case.model, case.strategy, case.data, case.px) == (name, "isometric", "pink", 128)
    ]
    return table(("network", "seed", *PLAN_COLUMNS), rows)


def plan_cells(plan: FirstPlan) -> tuple[str, ...]:
    sizes = [site.group_size for site in plan.sites]
    return (
        f"{plan.budget:.3f}",
        minus(f"{plan.trend_before:+.2f}"),
        minus(f"{plan.trend_after:+.2f}"),
        f"{median(sizes):g}",
        f"{min(sizes)}–{max(sizes)}",
        f"{mean(site.num_groups for site in plan.sites):.1f}",
    )


def draw(records: Records) -> None:
    """Draw the trend over the group size, above the error that ImageNet training gave."""

    def trends(strategy: str) -> list[float]:
        asked = (RESNET50, strategy, "pink", 128)
        return [plan.trend_after for c, plan, _ in records if (c.model, c.strategy, c.data, c.px) == asked]

    x = range(len(WIDTHS))
    plan = trends("isometric")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 4.8), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        top.axhline(0, color=FAINT, lw=0.7)
        top.axhspan(
            mean(plan) - np.std(plan),
            mean(plan) + np.std(plan),
            color=BEFORE,
            alpha=0.35,
            label="the plan (first rule)",
            lw=0,
        )
        found = [trends(strategy) for strategy in WIDTHS]
        means, deviations = [mean(one) for one in found], [float(np.std(one)) for one in found]
        top.errorbar(x, means, deviations, color=AFTER, marker="o", capsize=3, label="one group size in all layers")
        top.set_ylabel("trend of log u")
        top.set_title("ResNet-50, 128 px, 1/f noise: mean ± SD of five seeds")
        top.legend(loc="lower right")
        bottom.plot(x, [IMAGENET[strategy] for strategy in WIDTHS], color=INK, marker="s")
        bottom.set_ylabel("ImageNet error, %")
        bottom.set_xticks(x, ["1 (instance)", *(s.removeprefix("channels-") for s in WIDTHS[1:-1]), "all (layer)"])
        bottom.set_xlabel("channels per group (errors: Wu & He 2018, quoted)")
        for axes in (top, bottom):
            axes.spines["right"].set_visible(False)
        figure.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    app()
