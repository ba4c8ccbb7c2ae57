"""A whole study on the digits, run for real: once here, read by many tests."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import idealgroups as ig
from experiments.study import engines
from experiments.study.cli import study_app
from experiments.study.config import Data
from experiments.study.data import Dataset
from experiments.study.engines import LocalEngine
from experiments.study.execute import Summary, check, in_order, run_study
from experiments.study.grid import tuning_runs
from experiments.study.report import write_report
from experiments.study.store import Result, Store, read_results
from experiments.study.train import TrainJob
from study_cases import TINY, record

FOREVER = 120


def comparable(result: Result) -> dict[str, object]:
    timed = ("seconds", "finished")
    kept = {key: value for key, value in result.record.items() if key not in timed}
    kept["plan"] = {k: v for k, v in result.record["plan"].items() if "seconds" not in k}
    return kept


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary, list[tuple[str, int, int]]]:
    folder = tmp_path_factory.mktemp("study")
    seen: list[list[int]] = []
    names: list[tuple[str, int]] = []

    def progress(what: str, total: int) -> Callable[[], None]:
        names.append((what, total))
        seen.append([0])
        mine = seen[-1]
        return lambda: mine.__setitem__(0, mine[0] + 1)

    summary = run_study(TINY, Store(folder), LocalEngine(2), progress)
    return folder, summary, [(*name, count[0]) for name, count in zip(names, seen, strict=True)]


def test_every_run_of_the_study_is_there_once(done: tuple[Path, Summary, object]) -> None:
    folder, summary, _ = done
    lines = [json.loads(line) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert len(lines) == len({line["hash"] for line in lines}) == 12
    results = Store(folder).results()
    tuning = {(r.run.strategy, r.run.learning_rate) for r in results if r.run.seed == 0}
    assert tuning == {(name, rate) for name in TINY.strategies for rate in (0.01, 0.1)}
    assert sum(result.run.seed == 1 for result in results) == 4
    assert summary.failures == ()
    for line in lines:
        assert line["diverged"] is False
        assert len(line["val_losses"]) == 1
        assert line["machine"]["torch"]
        assert line["seconds"] > 0


def test_equal_groups_are_trained_once_and_stored_under_each_name(done: tuple[Path, Summary, object]) -> None:
    folder, summary, _ = done
    assert (summary.trained, summary.shared) == (9, 3)
    by_run = {(r.run.strategy, r.run.learning_rate, r.run.seed): r for r in Store(folder).results()}
    for rate, seed in {(rate, seed) for _, rate, seed in by_run}:
        if ("fixed-32", rate, seed) in by_run:
            one, two = by_run["fixed-32", rate, seed], by_run["gcd-32", rate, seed]
            assert one.groups == two.groups == (32, 32, 32)
            assert one.record["trained_as"] == two.record["trained_as"]
            assert one.test_loss == two.test_loss


def test_progress_tells_every_step(done: tuple[Path, Summary, list[tuple[str, int, int]]]) -> None:
    _, _, told = done
    assert told[0] == ("tuning runs: planning", 1, 1)
    assert told[1] == ("tuning runs: training", 6, 6)
    assert [total for _, total, _ in told] == [count for *_, count in told]


def test_a_finished_study_does_nothing_again_and_a_wider_one_only_what_is_new(
    done: tuple[Path, Summary, object], tmp_path: Path
) -> None:
    folder, _, _ = done
    for file in folder.glob("*.jsonl"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    store = Store(tmp_path)
    assert run_study(TINY, store, LocalEngine(1)) == Summary(0, 0, ())
    # min-32-quarter has 32 groups of 256 channels too: its results are known without training
    wider = dataclasses.replace(TINY, strategies=(*TINY.strategies, "min-32-quarter"))
    assert run_study(wider, store, LocalEngine(1)) == Summary(0, 3, ())


def test_trainings_of_one_seed_come_before_those_of_the_next() -> None:
    tuning = tuning_runs(dataclasses.replace(TINY, seeds=(0, 1, 2), strategies=("layer", "fixed-32")))
    jobs = [TrainJob((run,), None) for run in tuning]
    ordered = in_order(jobs)
    assert [job.runs[0].seed for job in ordered] == [0] * 4 + [1] * 4 + [2] * 4
    assert {job.runs for job in ordered} == {job.runs for job in jobs}
    assert ordered == in_order(jobs)


def test_rates_may_be_chosen_in_shorter_trainings(tmp_path: Path) -> None:
    study = dataclasses.replace(TINY, strategies=("layer", "batch"), epochs=2, tuning_epochs=1, final_seeds=(0, 1))
    assert run_study(study, Store(tmp_path), LocalEngine(1)) == Summary(8, 0, ())
    results = Store(tmp_path).results()
    steps = {(one.run.arm.epochs, one.record["steps"]) for one in results}
    assert {(epochs, count // epochs) for epochs, count in steps} == {(1, 10), (2, 10)}
    for name in study.strategies:
        own = [one for one in results if one.run.strategy == name]
        short = {one.run.learning_rate: one.val_loss for one in own if one.run.arm.epochs == 1}
        long = [(one.run.learning_rate, one.run.seed) for one in own if one.run.arm.epochs == 2]
        best = min(short, key=lambda rate: short[rate])
        assert (sorted(short), sorted(long)) == ([0.01, 0.1], [(best, 0), (best, 1)])


def start(folder: Path) -> subprocess.Popen[str]:
    code = "from experiments.study.cli import study_app; study_app()"
    options = (
        "--strategies fixed-32 --strategies gcd-32 --strategies layer --strategies batch --networks mlp3 --epochs 1 "
        "--data.train 320 --data.validation 100 --data.test 100 --final-seeds 0 --final-seeds 1 "
        "--sgd.learning-rates 0.01 --sgd.learning-rates 0.1 --jobs 1"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, "run", "--out", str(folder), *options.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_killed_study_goes_on_where_it_was_and_ends_the_same(
    done: tuple[Path, Summary, object], tmp_path: Path
) -> None:
    folder, _, _ = done
    process = start(tmp_path)
    until = time.monotonic() + FOREVER
    while time.monotonic() < until and len(list(tmp_path.glob("*.jsonl"))) == 0:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-5])  # as if it had been killed within a write
    before = len(read_results([tmp_path]))
    assert before < 12
    again = start(tmp_path)
    printed, _ = again.communicate(timeout=FOREVER)
    assert again.returncode == 0, printed
    assert "mlp3, digits, sgd, batch 32" in printed
    key = lambda result: result.run.hash  # noqa: E731
    ours, theirs = (sorted(read_results([where]), key=key) for where in (tmp_path, folder))
    assert [comparable(r)["val_losses"] for r in ours] == [comparable(r)["val_losses"] for r in theirs]
    assert [r.test_loss for r in ours] == [r.test_loss for r in theirs]


def killed_once(pid: int | None) -> Path:
    """The file that a killed worker of this process leaves."""
    return Path(tempfile.gettempdir()) / f"idealgroups-killed-{pid}"


def kill_worker_once(job: TrainJob, dataset: Dataset) -> int:
    """Work that kills its own process the first time it meets seed 1."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    flag = killed_once(parent.pid)
    if job.runs[0].seed == 1 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job.runs[0].seed


def always_kill(job: TrainJob, dataset: Dataset) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@pytest.mark.slow
def test_work_of_a_killed_worker_is_done_again(
    done: tuple[Path, Summary, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, _ = done
    jobs = [TrainJob((result.run,), None) for result in Store(folder).results()]
    with LocalEngine(1) as engine:
        results = list(engine.map(kill_worker_once, jobs))
    killed_once(os.getpid()).unlink()
    assert sorted(job.runs[0].hash for job, _ in results) == sorted(job.runs[0].hash for job in jobs)
    monkeypatch.setattr(engines, "MAX_CRASHES", 1)
    with LocalEngine(1) as engine, pytest.raises(ig.IdealGroupsError, match="--jobs"):
        list(engine.map(always_kill, jobs[:1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"networks": ("mlp5",)}, "did you mean mlp"),
        ({"networks": ("unet",)}, "unet with NAME-scenes"),
        ({"data": Data(names=("digits-scenes",))}, "unet with NAME-scenes"),
        ({"networks": ("unet",), "data": Data(names=("digits-scenes",), size=10)}, "multiple of 4"),
        ({"data": Data(names=("mnist",), folder="nowhere")}, "mnist is not in nowhere"),
    ],
)
def test_what_cannot_run_is_said_before_anything_runs(change: dict[str, object], message: str) -> None:
    with pytest.raises(ig.IdealGroupsError, match=message):
        check(dataclasses.replace(TINY, **change))


def test_the_report_command_writes_tables_and_plots(
    done: tuple[Path, Summary, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = done
    study_app(["report", str(folder), "--out", str(tmp_path / "out")], result_action="return_value")
    assert "mlp3, digits, sgd, batch 32" in capsys.readouterr().out
    text = (tmp_path / "out" / "report.md").read_text()
    for plot in re.findall(r"!\[.*\]\((.*)\)", text):
        assert (tmp_path / "out" / plot).read_bytes().startswith(b"\x89PNG")
    assert "![mlp3](plots/mlp3.png)" in text
    rows = {line.split("|")[1].strip(): line.split("|") for line in text.splitlines() if line.startswith("|")}
    best = min((r for r in Store(folder).results() if r.run.strategy == "layer"), key=lambda r: r.val_loss)
    assert rows["layer"][2].strip() == "256"
    assert rows["layer"][3].strip().startswith(f"{best.run.learning_rate:g}")


def test_a_report_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ig.IdealGroupsError, match="no finished runs"):
        write_report([], tmp_path)


def test_a_report_survives_divergence_and_missing_arms(tmp_path: Path) -> None:
    lines = [record("isometric", 0.1, seed, 1.0) for seed in range(3)]
    lines += [record("fixed-32", 0.1, seed, 1.0 if seed else float("inf")) for seed in range(3)]
    lines += [record("fixed-32", 0.01, seed, 2.0) for seed in range(3)]
    lines += [record("layer", 0.1, seed, float("inf")) for seed in range(3)]
    written = write_report([Result.from_record(line) for line in lines], tmp_path)
    assert [path.name for path in written] == ["overview.png", "plain9.png", "report.md"]
    assert "nan" not in written[-1].read_text()
