"""Results on disk: one JSON line a finished run, one file a process, read back together.

A line is written by a single ``write`` on a file that this process alone appends to, and synchronised to disk, so a
killed process can tear at most its own last line, which is dropped on reading and its run done again.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idealgroups.errors import IdealGroupsError

from .config import Run


@dataclass(frozen=True)
class Result:
    """One finished run, as the report sees it; ``record`` is the whole line. Losses of a diverged run are infinite."""

    run: Run
    groups: tuple[int, ...] | None
    val_loss: float
    test_loss: float
    test_accuracy: float
    record: dict[str, Any]

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Result:
        """Raises KeyError or TypeError where the record is no run's."""
        groups = record["plan"]["groups"]
        return cls(
            run=Run.from_dict(record["run"]),
            groups=None if groups is None else tuple(groups),
            val_loss=_loss(record["val_loss"]),
            test_loss=_loss(record["test_loss"]),
            test_accuracy=0.0 if record["test_accuracy"] is None else float(record["test_accuracy"]),
            record=record,
        )

    @property
    def training(self) -> tuple[object, ...]:
        """What was trained, whatever strategy asked for it: equal for runs that may share one training."""
        return (self.run.arm, self.run.learning_rate, self.run.seed, self.groups)


class Store:
    """A folder of JSON lines. The file of this process is made by its first :meth:`append`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._file = self.folder / f"runs-{uuid.uuid4().hex[:12]}.jsonl"

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        """Add finished runs, all or (after a crash) all but the last ones."""
        lines = ({**_rounded(record), "run": record["run"]} for record in records)
        text = "".join(json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n" for line in lines)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                data = text.encode()
                while data:
                    data = data[os.write(descriptor, data) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise IdealGroupsError(f"cannot write results to {self.folder}: {error.strerror or error}.") from None

    def results(self) -> list[Result]:
        """Every finished run once."""
        return read_results([self.folder]) if self.folder.exists() else []


def read_results(paths: Iterable[str | Path]) -> list[Result]:
    """The runs in JSONL files, or in the ``*.jsonl`` files of folders and their subfolders; each run once.

    Raises:
        IdealGroupsError: a line that is not the last of its file is no run.
    """
    results: dict[str, Result] = {}
    for path in map(Path, paths):
        for file in sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]:
            for result in _read_file(file):
                results.setdefault(result.run.hash, result)
    return list(results.values())


def _read_file(file: Path) -> list[Result]:
    try:
        lines = file.read_text().split("\n")
    except OSError as error:
        raise IdealGroupsError(f"cannot read {file}: {error.strerror or error}.") from None
    # What follows the last newline is empty, or a torn line.
    return [_parse(line, number, file) for number, line in enumerate(lines[:-1], 1)]


def _parse(line: str, number: int, file: Path) -> Result:
    try:
        return Result.from_record(json.loads(line))
    except (ValueError, KeyError, TypeError) as error:
        raise IdealGroupsError(
            f"line {number} of {file} is not a run ({type(error).__name__}: {error}); "
            "delete the line, its run will be done again."
        ) from None


def _loss(value: float | None) -> float:
    return math.inf if value is None else float(value)


def _rounded(value: Any) -> Any:
    """Floats to six significant digits: enough to compare, small on disk; what is not finite becomes None."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
