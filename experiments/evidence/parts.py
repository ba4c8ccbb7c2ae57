"""The arms as files: ``parts/NAME.toml`` says what ``python -m experiments.study run`` trains for it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.study.config import Arm, Data, Optimizer, PrivateOptimizer, Study
from experiments.study.grid import arms, final_runs, tuning_arm, tuning_runs
from experiments.study.store import Result

PARTS = Path(__file__).parent / "parts"


def read_part(file: Path) -> Study:
    """The study that a part's file describes."""
    text = tomllib.loads(file.read_text(encoding="utf-8"))
    kinds: dict[str, type[Any]] = dict.fromkeys(("sgd", "adamw", "fedavg"), Optimizer)
    kinds |= {"data": Data, "dp_sgd": PrivateOptimizer}
    return Study(**{k: kinds[k](**_tuples(value)) if k in kinds else _tuple(value) for k, value in text.items()})


@dataclass(frozen=True)
class Progress:
    """An arm of a part and its ``runs``, of which ``missing`` have not been made.

    Before every tuning run is made, the final ones are not all known: then ``runs`` is too low.
    """

    part: str
    arm: Arm
    missing: int
    runs: int


def progress(results: Sequence[Result], folder: Path = PARTS) -> list[Progress]:
    """How far every arm of every part is."""
    done = {result.run for result in results}
    found = []
    for file in sorted(folder.glob("*.toml")):
        study = read_part(file)
        wanted = {*tuning_runs(study), *final_runs(study, results)}
        for arm in arms(study):
            own = {run for run in wanted if run.arm in (arm, tuning_arm(arm, study))}
            found.append(Progress(file.stem, arm, len(own - done), len(own)))
    return found


def _tuples(table: dict[str, Any]) -> dict[str, Any]:
    return {name: _tuple(value) for name, value in table.items()}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
