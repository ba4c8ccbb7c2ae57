"""Is the search as good as an exhaustive one? Ten networks, every budget ε against the few that the search tries.

    python -m experiments.search run [NETWORK ...]     # measures what is not measured yet
    python -m experiments.search report                # writes the table of docs/theory.md

Exhaustive: 20 budgets over the whole range, then bisection between the last one that keeps the limit and the next.
Four images of 64 px and ten outputs; the search of a second batch shows how far one batch moves a plan.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from cyclopts import App
from rich.progress import track
from torch import nn

from experiments.common.jsonl import append_records, load_records
from experiments.common.markdown import minus, replace_section, table
from experiments.stability import NETWORKS as STABLE
from idealgroups.planner import Survey
from idealgroups.synthetic import synthetic
from idealgroups.theory.layer import Groups
from idealgroups.theory.solve import Budgets, limit

app = App(help=__doc__)
RESULTS = Path(__file__).with_suffix(".jsonl")
REPORT = Path(__file__).parents[1] / "docs" / "theory.md"
BUDGETS = 20


def _timm(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        model: nn.Module = timm.create_model(name, num_classes=10)
        return model

    return build


def _smp() -> nn.Module:
    import segmentation_models_pytorch as smp

    model: nn.Module = smp.Unet("resnet18", encoder_weights=None, classes=10)
    return model


def _ten(build: Callable[[int], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: build(10)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{name: _ten(build) for name, build in STABLE.items()},
    "regnetx_002": _timm("regnetx_002"),
    "ghostnet_050": _timm("ghostnet_050"),
    "unet (resnet18)": _smp,
}


def measure(name: str) -> dict[str, Any]:
    """Return the record of a network: (T, group sizes) of the search, of the exhaustive one and of another batch."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    with Survey(model, synthetic((4, 3, 64, 64), seed=1), seed=1) as other:
        moved = other.plan()
    with Survey(model, synthetic((4, 3, 64, 64))) as survey:
        found = survey.plan()
        trend, groups, passes = exhaustive(survey)
        after = survey._observe(moved.num_groups).trend
    channels = [site.num_channels for site in found.sites]
    return {
        "network": name,
        "limit": round(found.lowest_trend or 0.0, 3),
        "trends": [round(value, 3) for value in (found.trend_after, trend, after)],
        "channels": channels,
        "sizes": [
            [site.group_size for site in found.sites],
            [site.num_channels // groups[site.name] for site in found.sites],
            [site.group_size for site in moved.sites],
        ],
        "passes": passes,
    }


def exhaustive(survey: Survey) -> tuple[float, Groups, int]:
    """Return T and the groups of the largest budget that was found to keep the limit, and the number of passes."""
    one = survey._observe({layer.name: 1 for layer in survey.layers}, with_curves=True)
    family, floor = Budgets.of(one.curves), limit(one.trend)
    seen = {0: one.trend}

    def keeps(index: int) -> bool:
        if index not in seen:
            seen[index] = survey._observe(family.groups(index)).trend
        return seen[index] >= floor

    indices = sorted({round(i) for i in np.linspace(0, len(family) - 1, BUDGETS)})
    good = max(index for index in indices if keeps(index))
    bad = min((index for index in indices if index > good), default=len(family))
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if keeps(middle) else (good, middle)
    return seen[good], family.groups(good), len(seen)


@app.command
def run(*networks: str) -> None:
    """Measure what is not measured yet."""
    done = {record["network"] for record in load_records(RESULTS)}
    for name in track([name for name in networks or NETWORKS if name not in done], description="searching"):
        append_records(RESULTS, [measure(name)])


@app.command
def report() -> None:
    """Write the table."""
    replace_section(REPORT, "search", rows(load_records(RESULTS)))


def rows(records: list[dict[str, Any]]) -> str:
    """Return a row for each network."""
    lines = []
    for record in records:
        search, every, other = record["sizes"]
        lines.append(
            (
                record["network"],
                minus(f"{record['limit']:.2f}"),
                *(minus(f"{trend:.2f}") for trend in record["trends"]),
                f"{_same(search, every):.0%}",
                f"{_same(search, other):.0%}",
                ", ".join(f"{median(sizes):g}" for sizes in record["sizes"]),
                record["passes"],
            )
        )
    head = (
        *("network", "limit", "T, search", "T, exhaustive", "T, plan of another batch"),
        *("layers as in the exhaustive", "as with another batch", "median group sizes", "passes, exhaustive"),
    )
    return table(head, lines)


def _same(one: list[int], other: list[int]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


if __name__ == "__main__":
    app()
