"""The learning rates that were chosen in shorter trainings, as a table for each arm of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from experiments.common.markdown import Table
from experiments.study.analysis import analyse
from experiments.study.grid import arms, tuning_arm, tuning_runs
from experiments.study.store import Result

from .parts import read_part


def rates_tables(results: Sequence[Result], folder: Path) -> list[Table]:
    """For each finished arm that chose the rates of another: validation loss by choice and rate, the chosen in bold."""
    found = analyse(results)
    done = {result.run for result in results}
    tables = []
    for study in map(read_part, sorted(folder.glob("*.toml"))):
        for arm in arms(study):
            short = tuning_arm(arm, study)
            if short == arm or any(run not in done for run in tuning_runs(study) if run.arm == short):
                continue
            body = [
                (name, *(_cell(loss, chosen=rate == row.learning_rate) for rate, loss in row.curve.items()))
                for name, row in found[short].items()
            ]
            rates = sorted({rate for row in found[short].values() for rate in row.curve})
            title = f"Rates, chosen in trainings of {short.epochs} epochs: {arm}"
            note = f"Validation loss with seed{'s' if len(study.seeds) > 1 else ''} {', '.join(map(str, study.seeds))}."
            tables.append(Table(title, ("choice", *(f"{rate:g}" for rate in rates)), tuple(body), note))
    return tables


def _cell(loss: float, *, chosen: bool) -> str:
    text = f"{loss:.4f}" if math.isfinite(loss) else "diverged"
    return f"**{text}**" if chosen else text
