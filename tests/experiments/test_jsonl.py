"""JSON lines that survive a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

import idealgroups as ig
from experiments.common.jsonl import append_records, load_records, read_records


def test_a_torn_line_is_cut_off_before_the_next_is_appended(tmp_path: Path) -> None:
    file = tmp_path / "new" / "records.jsonl"
    assert load_records(file) == []
    append_records(file, [{"a": 1}, {"a": 2}])
    with file.open("a") as opened:
        opened.write('{"a": 3, "b"')
    assert load_records(file) == [{"a": 1}, {"a": 2}]
    append_records(file, [{"a": 4}])
    assert file.read_text() == '{"a":1}\n{"a":2}\n{"a":4}\n'


def test_a_file_that_is_one_torn_line_starts_anew(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text('{"a": ')
    append_records(file, [{"a": 1}])
    assert load_records(file) == [{"a": 1}]


def test_what_is_no_record_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text('{"a": 1}\n[1]\n')
    with pytest.raises(ig.IdealGroupsError, match=f"line 2 of {file}"):
        load_records(file)
    with pytest.raises(ig.IdealGroupsError, match="cannot read"):
        read_records(tmp_path / "none.jsonl", dict)


def test_a_number_that_json_lacks_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    with pytest.raises(ValueError, match="JSON"):
        append_records(file, [{"a": 1}, {"a": float("nan")}])
    assert not file.exists()
