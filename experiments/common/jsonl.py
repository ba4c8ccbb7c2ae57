"""JSON lines on disk: records appended so that a crash tears at most the last line, and read back without it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from idealgroups.errors import IdealGroupsError

Record = dict[str, Any]
T = TypeVar("T")


def append_records(file: Path, records: Iterable[Record]) -> None:
    """Add one line a record at the end of ``file``, which this process alone writes to, and synchronize it to disk.

    A torn last line, left by a process that was killed, is cut off first.

    Raises:
        IdealGroupsError: the file cannot be written.
    """
    lines = (json.dumps(record, allow_nan=False, separators=(",", ":")) for record in records)
    data = "".join(line + "\n" for line in lines).encode()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(file)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise IdealGroupsError(f"cannot write results to {file.parent}: {error.strerror or error}.") from None


def read_records(file: Path, parse: Callable[[Record], T]) -> list[T]:
    """``parse`` of every whole line; what follows the last newline was torn by a crash and is left out.

    Raises:
        IdealGroupsError: the file cannot be read, or ``parse`` raised ValueError, KeyError or TypeError for a line.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise IdealGroupsError(f"cannot read {file}: {error.strerror or error}.") from None
    return [_parse(line, number, file, parse) for number, line in enumerate(lines[:-1], 1)]


def load_records(file: Path) -> list[Record]:
    """Every record of ``file`` as it is; none where there is no file yet."""
    return read_records(file, dict) if file.exists() else []


def _parse(line: str, number: int, file: Path, parse: Callable[[Record], T]) -> T:
    try:
        return parse(json.loads(line))
    except (ValueError, KeyError, TypeError) as error:
        raise IdealGroupsError(
            f"line {number} of {file} is not a record ({type(error).__name__}: {error}); "
            "delete the line, its run will be done again."
        ) from None


def _cut_torn_line(file: Path) -> None:
    if not file.exists():
        return
    with file.open("rb+") as opened:
        size = opened.seek(0, os.SEEK_END)
        if size == 0:
            return
        opened.seek(size - 1)
        if opened.read(1) != b"\n":
            opened.seek(0)
            opened.truncate(opened.read().rfind(b"\n") + 1)
