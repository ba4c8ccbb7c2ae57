"""How much a plan moves with the number of outputs, the seed, the kind of input, the batch and the resolution.

    python -m experiments.stability run [NETWORK ...]     # measures what is not measured yet
    python -m experiments.stability report                # writes the table of docs/choices.md

One factor at a time is changed around ten outputs, 1/f noise and a batch of eight. ``first`` is the first rule.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from cyclopts import App
from rich.progress import track
from torch import Tensor, nn

from experiments.common.first_rule import FirstRule
from experiments.common.jsonl import append_records, load_records
from experiments.common.markdown import replace_section
from experiments.study.networks import UNet
from idealgroups.planner import Survey
from idealgroups.synthetic import synthetic
from idealgroups.theory.formulas import divisors
from idealgroups.theory.strategies import Isometric

app = App(help=__doc__)
RESULTS = Path(__file__).with_suffix(".jsonl")
REPORT = Path(__file__).parents[1] / "docs" / "choices.md"
CLASSES = (2, 10, 100, 1000)


@dataclass(frozen=True)
class Case:
    """One plan. ``rule``: ``isometric`` or ``first``."""

    network: str
    px: int
    classes: int = 10
    seed: int = 0
    data: str = "pink"
    batch: int = 8
    rule: str = "isometric"


def _torchvision(name: str) -> Callable[[int], nn.Module]:
    def build(classes: int) -> nn.Module:
        from torchvision.models import get_model

        model: nn.Module = get_model(name, weights=None, num_classes=classes)
        return model

    return build


def _timm(name: str) -> Callable[[int], nn.Module]:
    def build(classes: int) -> nn.Module:
        import timm

        model: nn.Module = timm.create_model(name, num_classes=classes)
        return model

    return build


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": _torchvision("resnet18"),
    "resnet50": _torchvision("resnet50"),
    "mobilenet_v2": _torchvision("mobilenet_v2"),
    "densenet121": _torchvision("densenet121"),
    "preact resnet": _timm("resnetv2_18"),
    "convnext": _timm("convnext_atto"),
    "unet": lambda classes: UNet(3, classes),
}
FIRST = ("resnet18", "unet")
LARGER = {
    **dict.fromkeys(("resnet18", "resnet50", "mobilenet_v2"), (128, 224)),
    **dict.fromkeys(("densenet121", "preact resnet", "convnext", "unet"), (128,)),
}


def cases(network: str) -> Iterator[Case]:
    """Yield the cases of a network, those at 64 px first."""
    at_64 = [
        *(Case(network, 64, classes, seed) for seed in range(2) for classes in CLASSES),
        *(Case(network, 64, seed=seed) for seed in (2, 3, 4)),
        *(Case(network, 64, seed=seed, data=data) for data in ("white", "photo") for seed in range(2)),
        *(Case(network, 64, batch=batch) for batch in (4, 32)),
    ]
    yield from at_64
    if network in FIRST:
        yield from (Case(**asdict(case) | {"rule": "first"}) for case in at_64)
    for px in LARGER.get(network, ()):
        yield from (Case(network, px, seed=seed) for seed in range(3 if px < 200 else 2))


def inputs(case: Case) -> Tensor:
    """Return the batch of a case; photographs are crops of scikit-learn's two sample images."""
    shape = (case.batch, 3, case.px, case.px)
    if case.data != "photo":
        return synthetic(shape, "pink" if case.data == "pink" else "noise", case.seed)
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(case.seed)
    crops = []
    for i in range(case.batch):
        image = load_sample_images().images[i % 2]
        side = int(rng.integers(case.px, min(image.shape[:2]) + 1))
        top, left = (int(rng.integers(0, size - side + 1)) for size in image.shape[:2])
        crop = torch.from_numpy(image[top : top + side, left : left + side].astype(np.float32)).permute(2, 0, 1)
        crops.append(nn.functional.interpolate(crop[None], (case.px, case.px), mode="bilinear", antialias=True)[0])
    x = torch.stack(crops)
    normalized: Tensor = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
    return normalized


def measure(case: Case) -> dict[str, Any]:
    """Return the record of a case."""
    torch.manual_seed(case.seed)
    model = NETWORKS[case.network](case.classes)
    with Survey(model, inputs(case), seed=case.seed, name=case.network) as network:
        plan = network.plan(Isometric() if case.rule == "isometric" else FirstRule())
    sites = [(site.num_channels, site.num_channels // site.num_groups) for site in plan.sites]
    return {"case": asdict(case), "trend": round(plan.trend_after, 3), "one": plan.one_number, "sites": sites}


@app.command
def run(*networks: str) -> None:
    """Measure what is not measured yet."""
    done = {json.dumps(record["case"]) for record in records()}
    todo = [case for name in networks or NETWORKS for case in cases(name) if json.dumps(asdict(case)) not in done]
    for case in track(todo, description="planning"):
        append_records(RESULTS, [measure(case)])


@app.command
def report() -> None:
    """Write the table."""
    replace_section(REPORT, "stability", table(records()))


def records() -> list[dict[str, Any]]:
    """Return what was measured."""
    return load_records(RESULTS)


def table(found: list[dict[str, Any]]) -> str:
    """Return a Markdown table: a row for each network, resolution and rule."""
    rows: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
    for record in found:
        case = record["case"]
        rows[case["network"], case["px"], case["rule"]].append(record)
    lines = [
        "| network | px | rule | plans | median group size | geometric mean | trend | layers within one divisor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    order = list(NETWORKS)
    for (network, px, rule), mine in sorted(rows.items(), key=lambda row: (order.index(row[0][0]), row[0][1])):
        medians = [median(size for _, size in record["sites"]) for record in mine]
        means = [_geometric_mean([size for _, size in record["sites"]]) for record in mine]
        trends = [record["trend"] for record in mine]
        lines.append(
            f"| {network} | {px} | {rule} | {len(mine)} | {min(medians):g} to {max(medians):g} "
            f"| {min(means):.1f} to {max(means):.1f} "
            f"| {min(trends):+.2f} to {max(trends):+.2f} | {100 * near_the_median(mine):.0f} % |".replace("-", "−")
        )
    return "\n".join(lines)


def near_the_median(mine: list[dict[str, Any]]) -> float:
    """Return the share of layers whose group size is at most one divisor away from the median over the plans."""
    near = []
    for layers in zip(*(record["sites"] for record in mine), strict=True):
        sizes = divisors(layers[0][0])
        middle = median(sizes.index(size) for _, size in layers)
        near += [abs(sizes.index(size) - middle) <= 1 for _, size in layers]
    return sum(near) / len(near)


def _geometric_mean(sizes: list[int]) -> float:
    return float(np.exp(np.mean(np.log(sizes))))


if __name__ == "__main__":
    app()
