"""Golden tables: what a person reads, to the letter. ``pytest --golden`` writes them anew; read the diff."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from idealgroups.records import Gradients, NotUnderstood, Site, WeightGradient
from idealgroups.results import Measurement, Plan
from idealgroups.tables import comparison_text, measurement_text, plan_text

GOLDEN = Path(__file__).parent / "golden"


def gradients(*us: float, silent: tuple[str, ...] = ()) -> Gradients:
    layers = tuple(WeightGradient(name=f"layer{i}.weight", relative=u) for i, u in enumerate(us))
    return Gradients(layers=layers, silent=silent)


def with_trend(trend: float) -> Gradients:
    """Return the gradients of two layers, so that the trend is the difference of their logarithms."""
    return gradients(1.0, math.exp(trend))


def site(name: str, num_channels: int, positions: int, before: int | None, num_groups: int, note: str = "") -> Site:
    return Site(
        name=name,
        kind="BatchNorm2d" if before is None else "GroupNorm",
        num_channels=num_channels,
        positions=positions,
        groups_before=before,
        ideal=num_groups * 1.27,
        num_groups=num_groups,
        gain=0.05 * num_groups**0.5 - 0.06,
        note=note,
    )


PLAN = Plan(
    model="example:net",
    strategy="isometric",
    input="8x3x64x64",
    output="8x10",
    seed=0,
    budget=0.1234,
    before=with_trend(-2.345),
    after=with_trend(-0.0001),
    lowest_trend=-1.0,
    seconds=1.25,
    sites=(
        site("stem.norm", 64, 1024, None, 16),
        site("stages.0.a_block_with_a_long_name.branches.0.normalization", 128, 256, 32, 8),
        site("stages.0.a_block_with_a_long_name.branches.1.normalization", 128, 256, 32, 8),
        site("stages.1.a_block_with_a_long_name.branches.0.normalization", 2048, 49, 32, 128),
        site("stages.2.norm", 37, 1, 37, 1, "37 groups would have 1 element each"),
    ),
    not_understood=(NotUnderstood(name="head.block", why="calls F.group_norm itself"),),
)
BATCH_NORM = replace(PLAN, sites=tuple(replace(one, groups_before=None) for one in PLAN.sites), not_understood=())
POSITIVE = replace(PLAN, after=with_trend(0.92), one_group_trend=1.4)
UNIFORM = replace(PLAN, strategy="fixed-32", budget=None, lowest_trend=None, after=with_trend(-1.4), one_number=8)
ADAM = replace(PLAN, optimizer="adam", one_number=8)
PRIVATE = replace(PLAN, optimizer="dp-sgd", after=replace(with_trend(-0.71), optimizer="dp-sgd"))
LAYER = replace(UNIFORM, strategy="layer", after=with_trend(0.6))
CALIBRATED = replace(
    BATCH_NORM,
    sites=tuple(replace(one, residual=0.0123) for one in BATCH_NORM.sites),
    strategy="faithful",
    after=None,
    calibrated_on=256,
    output_residual=0.1234,
)
LEAVE = replace(PLAN, before=with_trend(0.05), sites=PLAN.sites[1:])


def measurement(found: Gradients) -> Measurement:
    return Measurement(model="example:net", input="8x3x64x64", seed=0, gradients=found)


BEFORE = measurement(gradients(0.5, 0.25, 0.125, silent=("unused.weight",)))
AFTER = measurement(gradients(0.25, 0.25, 0.25))

TABLES = {
    "plan_60": lambda: plan_text(PLAN, 60),
    "plan_80": lambda: plan_text(PLAN, 80),
    "plan_100": lambda: plan_text(PLAN, 100),
    "plan_wide": lambda: plan_text(PLAN, 80, wide=True),
    "plan_of_batch_norms": lambda: plan_text(BATCH_NORM, 80),
    "plan_with_a_positive_trend": lambda: plan_text(POSITIVE, 80),
    "plan_of_a_baseline": lambda: plan_text(UNIFORM, 80),
    "plan_to_leave": lambda: plan_text(LEAVE, 80),
    "plan_calibrated": lambda: plan_text(CALIBRATED, 80),
    "plan_for_adam": lambda: plan_text(ADAM, 80),
    "plan_for_dp_sgd": lambda: plan_text(PRIVATE, 80),
    "plan_calibrated_for_dp_sgd": lambda: plan_text(replace(CALIBRATED, optimizer="dp-sgd"), 80),
    "compare_for_dp_sgd": lambda: comparison_text(
        [replace(one, optimizer="dp-sgd") for one in (PLAN, UNIFORM, LAYER)], 80
    ),
    "measure": lambda: measurement_text([("u", BEFORE)], 80),
    "measure_with_plan": lambda: measurement_text([("before", BEFORE), ("after", AFTER)], 80),
    "compare": lambda: comparison_text([UNIFORM, PLAN, LAYER], 80),
    "compare_baselines": lambda: comparison_text([UNIFORM, LAYER], 80),
}


@pytest.mark.parametrize("name", TABLES)
def test_golden(name: str, request: pytest.FixtureRequest) -> None:
    file, text = GOLDEN / f"{name}.txt", TABLES[name]() + "\n"
    if request.config.getoption("--golden"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text


def test_every_golden_table_is_tested() -> None:
    assert {file.stem for file in GOLDEN.glob("*.txt")} == set(TABLES)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_numbers_appear_in_full_and_no_line_is_too_long(width: int) -> None:
    lines = plan_text(PLAN, width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].split("  ")[0] == "layer"
    assert lines[0].split()[1:] == ["channels", "before", "groups", "group", "size"]
    assert [line.split()[-4:] for line in lines[1:5]] == [
        ["64", "-", "16", "4"],
        ["128", "32", "8", "16"],
        ["2048", "32", "128", "16"],
        ["37", "37", "1", "37"],
    ]


def test_printing_is_the_table_everywhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print(PLAN)
    assert str(PLAN) == f"{PLAN}" == plan_text(PLAN, 80) == capsys.readouterr().out.rstrip("\n")
    assert str(BEFORE) == measurement_text([("u", BEFORE)], 80)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_an_output_without_greek_letters_gets_ascii(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    noted = replace(PLAN, sites=(site("stem.norm", 64, 1024, None, 16, "γ = 0 measured as 1"),))
    monkeypatch.setattr(sys, "stdout", file)
    for one in (PLAN, noted, BEFORE):
        print(one)
    print(comparison_text([PLAN, UNIFORM]))
    file.flush()
    text = file.buffer.getvalue().decode("ascii")
    assert "trend of log u -2.35 -> +0.00 (limit -1.00)" in " ".join(text.split())
    assert "gamma = 0 measured as 1" in text
    assert "?" not in text


def test_a_plan_that_was_not_measured_has_a_table() -> None:
    text = plan_text(replace(PLAN, before=None, after=None), 80)
    assert "verdict: not measured: the numbers of groups follow from the shapes alone" in text
    assert "trend of log u" not in text


@pytest.mark.parametrize(("widths", "one", "bound"), [((16, 3), 1, True), ((16, 24), 8, True), ((16, 24), 4, False)])
def test_one_number_that_no_larger_one_could_be_says_so(widths: tuple[int, int], one: int, bound: bool) -> None:
    sites = tuple(site(f"norm{width}", width, 16, width, one) for width in widths)
    plan = replace(PLAN, sites=sites, not_understood=(), one_number=one)
    assert ("no larger one divides every width" in " ".join(str(plan).split())) == bound
