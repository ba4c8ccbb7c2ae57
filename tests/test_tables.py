"""Golden tables: what a person reads, to the letter. ``pytest --golden`` writes them anew; read the diff."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from idealgroups.plots import save_gradients
from idealgroups.records import Gradients, NotUnderstood, Site, WeightGradient
from idealgroups.results import Measurement, Plan
from idealgroups.tables import as_text, comparison_table, measurement_table

GOLDEN = Path(__file__).parent / "golden"


def layer(name: str, relative: float) -> WeightGradient:
    return WeightGradient(name=name, relative=relative)


PLAN = Plan(
    model="example:net",
    strategy="isometric",
    input="8x3x64x64",
    seed=0,
    budget=0.1234,
    before=Gradients(layers=(layer("a", 1.0), layer("b", 0.1))),
    after=Gradients(layers=(layer("a", 1.0), layer("b", 0.9999))),
    seconds=1.25,
    sites=(
        Site(
            name="stem.norm",
            kind="BatchNorm2d",
            num_channels=64,
            positions=1024,
            groups_before=None,
            ideal=19.44,
            num_groups=16,
            gain=0.19,
        ),
        Site(
            name="stage.0.norm",
            kind="GroupNorm",
            num_channels=128,
            positions=256,
            groups_before=32,
            ideal=8.4,
            num_groups=8,
            gain=0.1,
        ),
        Site(
            name="stage.1.norm",
            kind="GroupNorm",
            num_channels=128,
            positions=256,
            groups_before=32,
            ideal=10.7,
            num_groups=8,
            gain=0.12,
        ),
        Site(
            name="stage.2.norm",
            kind="GroupNorm",
            num_channels=37,
            positions=1,
            groups_before=37,
            ideal=1.2,
            num_groups=1,
            gain=0.0,
            note="37 groups would have 1 element each",
        ),
    ),
    not_understood=(NotUnderstood(name="head.block", why="calls F.group_norm itself"),),
)


def measurement(*us: float, silent: tuple[str, ...] = ()) -> Measurement:
    layers = tuple(WeightGradient(name=f"layer{i}.weight", relative=u) for i, u in enumerate(us))
    return Measurement(
        model="example:net", input="8x3x64x64", seed=0, gradients=Gradients(layers=layers, silent=silent)
    )


MEASURED = replace(PLAN, after=Gradients(layers=(layer("a", 1.0), layer("b", 0.39))), lowest_trend=-1.0, one_number=8)
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
