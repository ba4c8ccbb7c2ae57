"""Saving writes through links, pipes and devices, and never loses a file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from idealgroups.errors import IdealGroupsError
from idealgroups.files import read_text, write_text


def test_a_symbolic_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new", "the plan")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_dangling_link_makes_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text(tmp_path / "link", "new", "the plan")
    assert (tmp_path / "target").read_text() == "new"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "new", "the plan")
    reader.join(10)
    assert seen == ["new"]
    assert pipe.is_fifo()


def test_a_device_stays_a_device() -> None:
    write_text("/dev/null", "new", "the plan")
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    with pytest.raises(IdealGroupsError, match="cannot write the plan to /dev/full: No space left on device"):
        write_text("/dev/full", "x" * 100_000, "the plan")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "missing/plan.json", ""])
def test_a_path_that_cannot_be_is_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(IdealGroupsError, match="cannot write the plan to"):
        write_text(tmp_path / name, "new", "the plan")
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_250_characters_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("x" * 250), "new", "the plan")
    assert (tmp_path / ("x" * 250)).read_text() == "new"


def test_the_old_file_is_kept_if_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(IdealGroupsError, match="No space left"):
        write_text(path, "new", "the plan")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")
    path.chmod(0o640)
    write_text(path, "new", "the plan")
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_is_no_path_or_no_text_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(IdealGroupsError, match="a path is a str or a Path, not 3"):
        read_text(3, "the plan")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(IdealGroupsError, match="is not a text file"):
        read_text(tmp_path / "image.png", "the plan")
