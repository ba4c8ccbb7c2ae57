"""The report of the evidence on results made up so that every verdict is known."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from statistics import fmean, median

import pytest

from experiments.evidence.figure import above_figure
from experiments.evidence.parts import PARTS, progress, read_part
from experiments.evidence.report import RANKED, Above, above_best, report, summary
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


def test_rates_of_shorter_trainings_have_a_table_and_no_place_among_the_arms(tmp_path: Path) -> None:
    lines = PART.format(strategies=", ".join(f'"{name}"' for name in RANKED)).splitlines()
    (tmp_path / "short.toml").write_text("\n".join(["tuning_epochs = 1", *lines]))
    study = read_part(tmp_path / "short.toml")
    first = losses(study, 1.0, 3.0)[: len(tuning_runs(study))]
    every = [
        *first,
        *(result(one.strategy, one.learning_rate, one.seed, 1, 1, arm=one.arm) for one in final_runs(study, first)),
    ]
    (part,) = progress(first, tmp_path)
    assert (part.arm.epochs, part.missing, part.runs) == (3, len(every) - len(first), len(every))
    (whole,) = progress(every, tmp_path)
    assert (whole.missing, whole.runs) == (0, len(every))
    for told in (report(first, tmp_path), report(every, tmp_path)):
        assert "### Rates, chosen in trainings of 1 epochs: mlp3, digits, dp-sgd" in told
        assert "| isometric | **1.5000** | 2.0000 |" in told
    assert "Over 0 arms" in report(first, tmp_path)
    assert "Over 1 arms" in report(every, tmp_path)
    assert "Rates" not in report(first[:-1], tmp_path)
    (nothing,) = progress([], tmp_path)
    assert nothing.missing == nothing.runs == len(first)


def test_the_average_precision_is_shown_with_its_spread_where_boxes_are_found(parts: Path) -> None:
    every = losses(read_part(parts / "made-up.toml"), 1.0, 3.0)
    assert "Average precision" not in report(every, parts)
    told = [
        dataclasses.replace(one, record={**one.record, "test_ap50": 0.1 if one.run.seed % 2 else 0.3}) for one in every
    ]
    rows = report(told, parts).partition("### Average precision")[2].splitlines()
    (ours,) = (row for row in rows if row.startswith("| isometric |") and "±" in row)
    assert [cell.strip() for cell in ours.split("|")[1:-1]] == ["isometric", "50.0 ± 0.0", "20.0 ± 10.5", "10"]


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
    arms = above_best(losses(read_part(parts / "made-up.toml"), 1.0, 1.5), parts)
    assert [(one.title, one.kind) for one in arms] == [("made-up", "private")]
    assert arms[0].values["isometric"] == 0
    assert arms[0].values["fixed-32"] == pytest.approx(50)
    header, _, row, mean, middle = summary(arms).splitlines()
    assert header.startswith("| arm | isometric | fixed-32 | uniform |")
    assert header.endswith("| sweep | batch |")
    assert row.startswith("| made-up | +0.0 | +50.0 | +100.0 |")
    assert row.endswith("| +100.0 | – |")
    assert mean.startswith("| *mean* | 0.0 | 50.0 | 100.0 |")
    assert middle.startswith("| *median* | 0.0 | 50.0 | 100.0 |")


def test_arms_of_one_part_have_names_of_their_own() -> None:
    titles = [one.title for one in above_best(read_results([PARTS.parent / "runs"]))]
    assert len(set(titles)) == len(titles)
    assert {"brains: unet", "brains-one: segresnet", "ucr: OSULeaf", "voices"} <= set(titles)


def test_the_figure_has_every_choice_of_every_arm() -> None:
    """Per cents of one arm may be fifty times those of another."""
    arms = [
        Above("one", "private", {"isometric": 0.5, "layer": 3.0}),
        Above("two", "series", {"isometric": 52.7, "layer": 0.0}),
    ]
    (axes,) = above_figure(arms).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["isometric", "layer"]  # the last is on top: its median is smaller
    private, series, middle = (drawn.get_offsets() for drawn in axes.collections)
    assert private[:, 0].tolist() == [0.5, 3.0]
    assert series[:, 0].tolist() == [52.7, 0.0]
    assert middle.tolist() == [pytest.approx([26.6, 0]), [1.5, 1]]
    low, high = axes.get_xlim()
    assert low < 0 < 52.7 < high


def test_whether_the_least_mean_hangs_on_one_arm() -> None:
    text = report(read_results([PARTS.parent / "runs"]))
    assert "the least mean has isometric 5 times, uniform 15 times" in text
    assert "−3.7 to +7.8 by 95% of bootstrap samples of arms; ahead in 14 arms, behind in 6." in text


def test_the_readme_tells_what_the_finished_arms_found() -> None:
    """With another finished arm the README and docs/evidence.md must be read again."""
    text = report(read_results([PARTS.parent / "runs"]))

    def verdicts(reference: str) -> dict[str, int]:
        rows = text.partition(f"### isometric against {reference}")[2].partition("###")[0].splitlines()
        return dict(Counter([row.split("|")[-2].strip() for row in rows if row.count("|") == 8][2:]))

    assert verdicts("fixed-32") == {"better": 11, "worse": 4, "–": 5}
    assert verdicts("uniform") == {"better": 6, "worse": 4, "–": 10}
    readme = (PARTS.parents[2] / "README.md").read_text(encoding="utf-8")
    assert "20 small trainings" in readme
    assert "significantly better than 32 groups in 11, **significantly worse in four**" in readme
    assert "than `uniform` in six, **worse in four**" in readme
    middle = re.search(r"\| isometric \| [\d.]+ \| ([\d.]+) \|", text.partition("### Regret")[2])
    assert middle
    assert f"the plan is {float(middle[1]):.1f}% above the best" in readme


def test_the_page_has_the_numbers_of_the_report() -> None:
    results = read_results([PARTS.parent / "runs"])
    arms, text = above_best(results), report(results)
    page = (PARTS.parents[2] / "docs" / "evidence.md").read_text(encoding="utf-8")

    def rows(title: str) -> dict[str, list[str]]:
        lines = text.partition(f"### {title}")[2].partition("###")[0].splitlines()
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
        return {row[0]: row[1:] for row in cells}

    kinds = rows("Mean regret by kind of arm, %")
    mean, middle, worst = (
        {name: of([one.values[name] for one in arms]) for name in RANKED} for of in (fmean, median, max)
    )
    assert f"Its median is {middle['isometric']:.1f}% above the best of the nine" in page
    assert sorted(middle, key=lambda name: middle[name])[:3] == ["isometric", "channels-4", "uniform"]
    assert f"groups of 4 channels with {middle['channels-4']:.1f}% and `uniform` with {middle['uniform']:.1f}%" in page
    assert rows("Regret, %")["isometric"][:3] == [f"{of['isometric']:.2f}" for of in (mean, middle, worst)]
    assert f"{mean['isometric']:.1f}% against {mean['uniform']:.1f}% of `uniform`" in page
    apart = re.search(r"uniform: \S+ points in the mean, (\S+) to (\S+) by", text)
    assert apart
    assert f"a 95% interval from {apart[1]} to {apart[2]} points" in " ".join(page.split())
    assert f"That is `uniform` with {worst['uniform']:.0f}%. The plan is {worst['isometric']:.0f}% above" in page
    ours, one_number, habit = (kinds["kind"].index(name) for name in ("isometric", "uniform", "fixed-32"))
    small, private = kinds["batches of 1 and 2"], kinds["private"]
    batches = f"{small[ours]}% above the best in the mean; `uniform` {float(small[one_number]):.0f}%"
    assert f"batches of one and two ({batches}" in page
    detector = [one.values["isometric"] for one in arms if one.title in ("trees-one", "trees", "cells-one")]
    assert len(detector) == 3
    assert f"the plan is {min(detector):.0f} to {max(detector):.0f}% above it" in page
    most = re.search(r"In (\d+) of (\d+) arms most choices have their best rate at the edge", text)
    assert most
    assert f"In {most[1]} of the {most[2]} arms most best learning rates lie at the edge of the rates tried" in page
    assert f"private training ({private[ours]}%, {private[one_number]}%, {private[habit]}%)" in page


def test_how_much_one_group_size_matters(parts: Path) -> None:
    every = losses(read_part(parts / "made-up.toml"), 1.0, 3.0)
    by_name = {"channels-16": 1.0, "channels-8": 1.04, "channels-32": 1.04, "instance": 3.0}
    told = [dataclasses.replace(one, test_loss=by_name.get(one.run.strategy, 2.0)) for one in every]
    text = report(told, parts).partition("### One group size")[2].partition("###")[0]
    (row,) = (line for line in text.splitlines() if line.startswith("| mlp3"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == ["+200.0", "+100.0", "+100.0", "+4.0", "+0.0", "+4.0",
                                                              "+100.0"]  # fmt: skip
    assert "within 5% of the best size in 1 of 1 arms. Of the other 0, the best size is 1, 2 or 4 in 0." in text


def test_the_page_says_where_any_usual_group_size_will_do() -> None:
    text = report(read_results([PARTS.parent / "runs"]))
    assert "within 5% of the best size in 6 of 20 arms. Of the other 14, the best size is 1, 2 or 4 in 12." in text
    page = " ".join((PARTS.parents[2] / "docs" / "evidence.md").read_text().split())
    assert "**Where any usual group size will do:** in six of the 20 arms" in page
    assert "In 12 of the other 14 arms the best size is 1, 2 or 4." in page


def test_the_page_says_how_far_small_groups_are_behind_in_private_trainings_on_cifar() -> None:
    text = report(read_results([PARTS.parent / "runs"])).partition("### One group size")[2].partition("###")[0]
    rows = [line.split("|")[2:-1] for line in text.splitlines() if "cifar10 16 px, dp-sgd" in line]
    instance, two, four, *others = zip(*([float(cell) for cell in row] for row in rows), strict=True)
    assert len(rows) == 2
    assert max(max(values) for values in others) < 4
    ranges = [f"{min(values):.0f} to {max(values):.0f}%" for values in (four, two, instance)]
    page = " ".join((PARTS.parents[2] / "docs" / "evidence.md").read_text().split())
    assert "have 8 channels a group and more within 4% of the best size" in page
    assert f"Four channels are {ranges[0]} behind, two {ranges[1]}, and instance norm {ranges[2]}." in page


def test_the_page_says_how_far_the_long_trainings_are_and_what_they_gave() -> None:
    home = PARTS.parent
    results = read_results([home / "long-runs"])
    text = report(results, home / "long", goals=False)
    assert text == (home / "report-long.md").read_text(encoding="utf-8")
    page = " ".join((home.parents[1] / "docs" / "evidence.md").read_text().split())
    (arm,) = (one for one in progress(results, home / "long") if one.part == "resnet20")
    final = [one for one in results if one.run.arm == arm.arm]
    assert f"{len(final)} of its {len(final) + arm.missing} final trainings are done." in page
    right = {
        name: f"{100 * fmean(one.test_accuracy for one in final if one.run.strategy == name):.1f}%"
        for name in ("isometric", "fixed-32", "uniform", "batch")
    }
    assert f"{right['isometric']} are right with the plan (two channels a group in most layers)" in page
    assert f"{right['fixed-32']} with 32 groups (one or two channels each)" in page
    assert f"{right['uniform']} with `uniform` (8 groups) and {right['batch']} with batch norm" in page
    seeds = Counter(one.run.strategy for one in final)
    fewest = min(seeds[name] for name in ("isometric", "fixed-32", "uniform"))
    assert f"The first three have at least {fewest} seeds each, batch norm has {seeds['batch']}." in page
    sizes: dict[str, Counter[int]] = {name: Counter() for name in right}
    for one in final:
        for channels, groups in zip(one.record["plan"].get("channels", ()), one.groups or (), strict=True):
            sizes[one.run.strategy][channels // groups] += 1
    assert set(sizes["fixed-32"]) == {1, 2}
    assert 2 * sizes["isometric"][2] > sizes["isometric"].total()
    assert {groups for one in final if one.run.strategy == "uniform" for groups in one.groups or ()} == {8}
    (rates,) = re.findall(r"^\| uniform \| \*\*([\d.]+)\*\* \| ([\d.]+) \|", text, re.MULTILINE)
    assert "its validation loss was {} at 0.03 and {} at 0.1.".format(*rates) in page
