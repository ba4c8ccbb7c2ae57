from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

import idealgroups as ig
from experiments.study.store import Store, read_results
from study_cases import record


def append_many(folder: Path, seeds: range) -> None:
    store = Store(folder)
    for seed in seeds:
        store.append([record("layer", 0.1, seed, 1.0)])


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "folder")
    assert store.results() == []
    store.append([record("layer", 0.1, 0, 1.23456789), record("batch", 0.1, 0, float("inf"), groups=None)])
    first, second = store.results()
    assert first.run.strategy == "layer"
    assert first.groups == (4, 8)
    assert first.val_loss == 1.23457
    assert second.groups is None
    assert second.val_loss == second.test_loss == float("inf")


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    append_many(tmp_path, range(3))
    (file,) = tmp_path.glob("*.jsonl")
    whole = file.read_bytes()
    for cut in (1, 10, len(whole.splitlines()[-1])):
        file.write_bytes(whole[:-cut])
        assert [result.run.seed for result in read_results([tmp_path])] == [0, 1]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    append_many(tmp_path, range(3))
    (file,) = tmp_path.glob("*.jsonl")
    lines = file.read_text().splitlines()
    for broken in (lines[1][:50], json.dumps({"run": 1}), "[]"):
        file.write_text("\n".join([lines[0], broken, lines[2], ""]))
        with pytest.raises(ig.IdealGroupsError, match=rf"line 2 of {file}"):
            read_results([tmp_path])


def test_two_processes_never_write_one_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=append_many, args=(tmp_path, range(i * 20, i * 20 + 30))) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    files = list(tmp_path.glob("*.jsonl"))
    assert [len(file.read_text().splitlines()) for file in files] == [30, 30]
    # seeds 20 to 29 were done by both, and count once
    assert sorted(result.run.seed for result in read_results([tmp_path])) == list(range(50))


def test_files_and_folders_are_read_together(tmp_path: Path) -> None:
    append_many(tmp_path / "a", range(2))
    append_many(tmp_path / "b" / "c", range(1, 4))
    (file,) = (tmp_path / "a").glob("*.jsonl")
    assert len(read_results([file])) == 2
    assert len(read_results([tmp_path])) == 4
    with pytest.raises(ig.IdealGroupsError, match="cannot read"):
        read_results([tmp_path / "nowhere"])
