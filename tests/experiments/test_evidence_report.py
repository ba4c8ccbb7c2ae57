"""The report of the evidence on results made up so that every verdict is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.evidence.figure import above_figure
from experiments.evidence.parts import PARTS, progress, read_part
from experiments.evidence.report import RANKED, above_best, report, summary
from experiments.study.cli import study_app
from experiments.study.config import Run, Study
from experiments.study.grid import arms, final_runs, tuning_runs
from experiments.study.store import Result, read_results
from study_cases import result

PART = """
name = "evidence"
networks = ["mlp3"]
strategies = [{strategies}, "sweep"]
seeds = [0]
final_seeds = [0, 1, 2]
tested = ["isometric", "fixed-32"]
tested_seeds = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
[data]
names = ["digits"]
[sgd]
learning_rates = []
[dp_sgd]
learning_rates = [0.5, 1]
epsilon = 3
"""


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    (tmp_path / "made-up.toml").write_text(PART.format(strategies=", ".join(f'"{name}"' for name in RANKED)))
    return tmp_path


def losses(study: Study, ours: float, habit: float) -> list[Result]:
    """Every run of a study with a test loss that depends on the strategy alone, 2 for the others."""

    def made(run: Run) -> Result:
        value = {"isometric": ours, "fixed-32": habit}.get(run.strategy, 2.0)
        return result(run.strategy, run.learning_rate, run.seed, value + run.learning_rate, value, arm=run.arm)

    tuned = [made(run) for run in tuning_runs(study)]
    return [*tuned, *(made(run) for run in final_runs(study, tuned) if run.seed)]


def verdicts(text: str) -> dict[str, str]:
    rows = text.partition("### Goals")[2].splitlines()
    return {row.split("|")[1].strip(): row.split("|")[3].strip() for row in rows if row.count("|") == 4}


def test_a_part_is_read_as_the_command_line_reads_it(parts: Path) -> None:
    file = parts / "made-up.toml"
    _, bound, _ = study_app.parse_args(["run", str(file)])
    assert read_part(file) == bound.arguments["study"]
    assert read_part(file).dp_sgd.epsilon == 3
    assert all(arms(read_part(committed)) for committed in PARTS.glob("*.toml"))


def test_an_arm_is_finished_when_no_run_of_it_is_missing(parts: Path) -> None:
    study = read_part(parts / "made-up.toml")
    every = losses(study, 1.0, 3.0)
    (whole,) = progress(every, parts)
    assert (whole.arm, whole.missing, whole.runs) == (arms(study)[0], 0, len(every))
    (torn,) = progress(every[:-1], parts)
    assert torn.missing == 1
    assert "| finished |" in report(every, parts)
    assert f"{len(every) - 1} of {len(every)} or more" in report(every[:-1], parts)


def test_the_verdicts_where_the_plan_is_best(parts: Path) -> None:
    text = report(losses(read_part(parts / "made-up.toml"), 1.0, 3.0), parts)
    assert set(verdicts(text).values()) == {"met", "verdict", "---"}
    assert "in 1 of 1" in text
    assert "How far the worst choice lies above the best, leaving out instance norm: 200.0 to 200.0%" in text


def test_the_verdicts_where_habit_is_best(parts: Path) -> None:
    found = verdicts(report(losses(read_part(parts / "made-up.toml"), 3.0, 1.0), parts))
    assert set(found.values()) == {"**refuted**", "verdict", "---"}


def test_nothing_is_concluded_from_no_arm(parts: Path) -> None:
    found = verdicts(report([], parts))
    assert set(found.values()) == {"open", "verdict", "---"}


def test_the_table_and_the_figure_for_people(parts: Path) -> None:
    columns = above_best(losses(read_part(parts / "made-up.toml"), 1.0, 1.5), parts)
    assert list(columns) == ["made-up"]
    assert columns["made-up"]["isometric"] == 0
    assert columns["made-up"]["fixed-32"] == pytest.approx(50)
    rows = summary(columns).splitlines()
    assert rows[2] == "| isometric | +0.0 | 0.0 |"
    assert rows[3] == "| fixed-32 | +50.0 | 50.0 |"
    assert rows[-1].startswith("| sweep | +100.0 | – |")
    (panel,) = above_figure(columns).axes
    offsets = panel.collections[-1].get_offsets()[:, 0]
    shown = dict(zip([label.get_text() for label in panel.get_yticklabels()], offsets, strict=True))
    assert shown["fixed-32"] == pytest.approx(50)
    assert "instance" not in shown


def test_every_choice_is_inside_its_panel() -> None:
    """Per cents of one arm may be fifty times those of another."""
    columns = {"one": {"isometric": 0.5, "layer": 3.0}, "two": {"isometric": 52.7, "layer": 0.0}}
    for panel, values in zip(above_figure(columns).axes, columns.values(), strict=True):
        low, high = panel.get_xlim()
        assert low < 0 < max(values.values()) < high


def test_the_readme_tells_what_the_finished_arms_found() -> None:
    """Better than 32 groups in three of four arms, worse in one: with more the README must be read again."""
    text = report(read_results([PARTS.parent / "runs"]))

    def verdicts(reference: str) -> list[str]:
        rows = text.partition(f"### isometric against {reference}")[2].partition("###")[0].splitlines()
        return sorted([row.split("|")[-2].strip() for row in rows if row.count("|") == 8][2:])

    assert verdicts("fixed-32") == ["better", "better", "better", "worse"]
    assert verdicts("uniform") == ["worse", "–", "–", "–"]
    readme = (PARTS.parents[2] / "README.md").read_text(encoding="utf-8")
    assert "Today's has four finished arms: significantly better than 32 groups in three" in readme
    assert "significantly worse than `uniform` in another" in readme
