"""Results on disk: one JSON line a finished run, one file a process, read back together.

A process appends to a file of its own, so a killed one can tear at most its own last line, which is dropped on reading
and its run done again.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.jsonl import append_records, read_records
from .config import Run


@dataclass(frozen=True)
class Result:
    """One finished run, as the report sees it; ``record`` is the whole line. Losses of a diverged run are infinite.

    ``test_accuracy`` is NaN where nothing is classified.
    """

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
            test_accuracy=_accuracy(record["test_accuracy"], diverged=record["test_loss"] is None),
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
        append_records(self._file, ({**_rounded(record), "run": record["run"]} for record in records))

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
            for result in read_records(file, Result.from_record):
                results.setdefault(result.run.hash, result)
    return list(results.values())


def _loss(value: float | None) -> float:
    return math.inf if value is None else float(value)


def _accuracy(value: float | None, diverged: bool) -> float:
    if value is None:
        return 0.0 if diverged else math.nan
    return float(value)


def _rounded(value: Any) -> Any:
    """Floats to six significant digits: enough to compare, small on disk; what is not finite becomes None."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
