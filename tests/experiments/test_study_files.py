"""The study of this repository: its parts can be read, and its report can be made from a slice of its results."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import fmean

import pytest
import torch

from experiments.study.analysis import analyse, compare, ranks, regrets
from experiments.study.cli import study_app
from experiments.study.config import Study
from experiments.study.grid import arms, tuning_runs
from experiments.study.networks import NETWORKS, TIMM, build
from experiments.study.report import write_report
from experiments.study.store import read_results
from idealgroups import plan

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "experiments" / "study"
PARTS = sorted((STUDY / "parts").glob("*.toml"))
BLIND = [part for part in PARTS if part.stem.startswith("10-")]
RESULTS = STUDY / "runs" / "study"
BLIND_RESULTS = STUDY / "runs" / "blind"


def read(part: Path) -> Study:
    _, bound, _ = study_app.parse_args(["run", str(part)], exit_on_error=False, print_error=False)
    study = bound.arguments["study"]
    assert isinstance(study, Study)
    return study


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.stem)
def test_every_part_is_a_grid_of_known_networks_with_four_rates(part: Path) -> None:
    study = read(part)
    assert study.name == "study"
    assert {name for name in study.networks if not name.startswith(TIMM)} <= set(NETWORKS)
    for optimizer in (study.sgd, study.adamw):
        assert len(optimizer.learning_rates) in (0, 4)
    assert set(study.tested) >= {"isometric"}
    assert tuning_runs(study)


def test_the_parts_have_the_arms_that_the_document_counts() -> None:
    compared = {arm for part in PARTS if part.stem.split("-")[0] in set("123456") for arm in arms(read(part))}
    assert len(compared) == 24
    assert f"{len(compared)} arms carry the comparison" in " ".join((ROOT / "docs" / "protocol.md").read_text().split())
    ablated = {arm for part in PARTS if part.stem[0] in "89" for arm in arms(read(part))}
    assert ablated <= compared
    assert sum((arm.optimizer, arm.batch_size) == ("sgd", 64) for arm in compared) == 13
    apart = [arm for part in PARTS if part.stem.split("-")[0] in ("11", "12") for arm in arms(read(part))]
    assert len(apart) == 8
    assert not set(apart) & compared
    blind = {arm for part in BLIND for arm in arms(read(part))}
    assert len(blind) == 14
    assert not blind & compared


def test_the_evidence_tells_the_ranks_and_regrets_that_the_results_hold() -> None:
    arms = {arm: rows for arm, rows in analyse(read_results([RESULTS, BLIND_RESULTS])).items() if "sweep" in rows}
    arms |= analyse(read_results([BLIND_RESULTS]))
    evidence = (ROOT / "docs" / "first-study.md").read_text()
    assert len(arms) == 38
    assert "| over 24 + 14 arms |" in evidence
    mean_ranks, regret = ranks(arms), regrets(arms)
    assert min(mean_ranks, key=lambda name: mean_ranks[name]) == "isometric"
    assert min(regret, key=lambda name: regret[name].mean) == "isometric"
    assert min(regret, key=lambda name: regret[name].worst) == "isometric"
    convolutional = regrets({arm: rows for arm, rows in arms.items() if not arm.network.startswith("mlp")})
    ours, habit = (
        f"{100 * one.mean:.1f}% and {100 * one.worst:.0f}%"
        for one in (convolutional["isometric"], convolutional["fixed-32"])
    )
    assert f"In the 24 convolutional arms alone {ours} (32 groups: {habit})" in " ".join(evidence.split())
    told = re.findall(r"^\| `([\w-]+)`[^|]* \| ([\d.]+) \| ([\d.]+)% \| ([\d,]+)% \|$", evidence, re.MULTILINE)
    assert [name for name, *_ in told] == list(mean_ranks)  # all ten, the best rank first
    for name, rank, mean, worst in told:
        assert rank == f"{mean_ranks[name]:.1f}"
        assert mean == f"{100 * regret[name].mean:.1f}"
        assert worst == f"{100 * regret[name].worst:,.0f}"


def test_the_evidence_counts_the_verdicts_against_32_groups_part_by_part() -> None:
    evidence = " ".join((ROOT / "docs" / "first-study.md").read_text().split())
    study = [one for one in compare(analyse(read_results([RESULTS])), "isometric", "fixed-32") if one.seeds > 5]
    blind = analyse(read_results([BLIND_RESULTS]))
    wide = {arm for part in BLIND if "wide" in part.stem for arm in arms(read(part))}
    parts = [{arm for arm in blind if arm.network.startswith("mlp")}, wide]
    parts.append(set(blind).difference(*parts))
    assert [len(part) for part in parts] == [6, 3, 5]
    found = [
        one.verdict
        for part in parts
        for one in compare({arm: rows for arm, rows in blind.items() if arm in part}, "isometric", "fixed-32")
    ]
    assert len(study) == 24
    better, worse = (sum(one.verdict == verdict for one in study) for verdict in ("better", "worse"))
    assert f"it is significantly better in {better} of the 24" in evidence
    assert f"in {found.count('better')} of the {len(found)} (corrected part by part" in evidence
    assert (worse, found.count("worse")) == (4, 1)
    assert "**significantly worse than 32 groups in four** of the 24 and in one of the 14" in evidence


def test_mnist_was_trained_with_the_groups_that_the_rule_of_today_gives() -> None:
    """The first rule planned these trainings; the pages say that they are also those of today."""
    own = [result for result in read_results([RESULTS]) if result.run.arm.network == "mlp3-512"]
    for seed in range(5):
        torch.manual_seed(seed)
        network, images = build("mlp3-512", 1, 10, 28), torch.randn(64, 1, 28, 28)
        for strategy, trained_as in (("isometric", "isometric"), ("uniform", "isometric"), ("block", "block")):
            today = tuple(site.num_groups for site in plan(network, images, strategy=strategy).sites)
            recorded = {one.groups for one in own if (one.run.strategy, one.run.seed) == (trained_as, seed)}
            assert recorded == {today}
    ((_, rows),) = analyse(own).items()
    error = {name: f"{100 * fmean(row.test_error.values()):.2f}%" for name, row in rows.items()}
    readme, page = (" ".join((ROOT / name).read_text().split()) for name in ("README.md", "docs/first-study.md"))
    told = f"on MNIST it had {error['batch']} error, the plan {error['isometric']}, 32 groups {error['fixed-32']}."
    assert told in readme
    assert f"a test error of {error['isometric']} with three hidden layers of 512" in page
    assert f"`block` has {error['block']}, 32 groups {error['fixed-32']}, batch norm {error['batch']}." in page
    assert {len(rows[name].test_loss) for name in ("isometric", "block", "fixed-32", "batch")} == {5}


def test_the_table_of_longer_trainings_is_what_the_results_hold() -> None:
    """Typed by hand: its verdicts are corrected over the arms of one data set, as stated, the report's over all."""
    results = {"190": [RESULTS], "940": [STUDY / "runs" / "longer"]}
    found = {steps: analyse(read_results(folders)) for steps, folders in results.items()}
    text = (ROOT / "docs" / "first-study.md").read_text()
    networks = next(line for line in text.splitlines() if line.startswith("| | mobilenet | resnet14")).split("|")[2:-1]
    networks = [network.strip() for network in networks]
    rows = [re.match(r"\| `(\w+)`, (\S+), (\d+) steps", line) for line in text.splitlines()]
    assert sum(row is not None for row in rows) == 6
    for row in filter(None, rows):
        name, title, steps = row.groups()
        data = {"Fashion-MNIST": "fashion", "CIFAR-10": "cifar10"}[title]
        arms = {
            arm: strategies
            for arm, strategies in found[steps].items()
            if arm.images.name == data and arm.network in networks and (arm.optimizer, arm.batch_size) == ("sgd", 64)
        }
        compared = compare(arms, name, "fixed-32")
        assert len(compared) == len(networks) == 4
        for one in compared:
            cell = row.string.split("|")[2:-1][networks.index(one.arm.network)]
            base = fmean(arms[one.arm]["fixed-32"].test_loss.values())
            assert cell.split()[0] == f"{100 * one.difference.mean / base:+.1f}%".replace("-", "−")
            assert ("(worse)" in cell, "(better)" in cell) == (one.verdict == "worse", one.verdict == "better")


def test_the_report_is_made_from_a_slice_of_the_results(tmp_path: Path) -> None:
    if not RESULTS.exists():
        pytest.skip("the study has not been run in this checkout")
    results = read_results([RESULTS])
    first = min(results, key=lambda result: str(result.run.arm)).run.arm
    written = write_report([result for result in results if result.run.arm == first], tmp_path)
    assert {path.suffix for path in written} == {".png", ".md"}
    assert str(first) in (tmp_path / "report.md").read_text()
