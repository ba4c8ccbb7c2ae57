"""Golden tables: what a person reads, to the letter. ``pytest --golden`` writes them anew; read the diff."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from idealgroups.measurement import Measurement
from idealgroups.measuring.observation import WeightGradient
from idealgroups.plots import save_gradients
from idealgroups.results import NotUnderstood, Plan, Site
from idealgroups.tables import as_text, comparison_table, measurement_table

GOLDEN = Path(__file__).parent / "golden"

PLAN = Plan(
    model="example:net",
    strategy="isometric",
    input="8x3x64x64",
    seed=0,
    budget=0.1234,
    trend_before=-2.345,
    trend_after=-0.0001,
    spread_before=1.05,
    spread_after=0.6,
    seconds=1.25,
    sites=(
        Site("stem.norm", "BatchNorm2d", 64, 1024, None, 19.44, 16, 0.19),
        Site("stage.0.norm", "GroupNorm", 128, 256, 32, 8.4, 8, 0.1),
        Site("stage.1.norm", "GroupNorm", 128, 256, 32, 10.7, 8, 0.12),
        Site("stage.2.norm", "GroupNorm", 37, 1, 37, 1.2, 1, 0.0, "37 groups would have 1 element each"),
    ),
    not_understood=(NotUnderstood("head.block", "calls F.group_norm itself"),),
)


def measurement(*us: float, silent: tuple[str, ...] = ()) -> Measurement:
    layers = tuple(WeightGradient(f"layer{i}.weight", u) for i, u in enumerate(us))
    return Measurement("example:net", "8x3x64x64", 0, -1.5, 0.5, layers, silent)


MEASURED = replace(PLAN, trend_after=-0.95, lowest_trend=-1.0, one_number=8)
ADAM = replace(MEASURED, optimizer="adam")

TABLES = {
    "plan": lambda: str(PLAN),
    "plan_with_one_number": lambda: str(MEASURED),
    "plan_for_adam": lambda: str(ADAM),
    "measure": lambda: str(measurement(0.5, 0.25, 0.125, silent=("unused.weight",))),
    "measure_with_plan": lambda: as_text(
        *measurement_table([("before", measurement(0.5, 0.25, 0.125)), ("after", measurement(0.25, 0.25, 0.25))])
    ),
    "compare": lambda: as_text(*comparison_table([PLAN])),
}


@pytest.mark.parametrize("name", TABLES)
def test_golden(name: str, request: pytest.FixtureRequest) -> None:
    file, text = GOLDEN / f"{name}.txt", TABLES[name]() + "\n"
    if request.config.getoption("--golden"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert file.read_text() == text


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_plots_are_written(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"u.{ending}"
    save_gradients(file, [("before", measurement(1, math.e)), ("after", measurement(1, 1))], "example")
    assert file.stat().st_size > 1000
