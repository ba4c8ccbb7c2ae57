"""How much the group size matters where all layers have the same: the trainings of trial and error, seed 0."""

from __future__ import annotations

import math
from collections.abc import Mapping

from experiments.common.markdown import Table, minus
from experiments.study.analysis import Row
from experiments.study.config import SWEEP_MEMBERS, Arm
from experiments.study.tables import Arms

SEED = 0
"""The one that all sizes have."""

USUAL = ("channels-8", "channels-16", "channels-32")
CLOSE = 5.0
"""Per cent above the best size."""


def above_best_size(rows: Mapping[str, Row]) -> dict[str, float]:
    """By how many per cent each size's test loss lies above that of the best size; each at its own best rate."""
    losses = {name: rows[name].test_loss.get(SEED, math.nan) for name in SWEEP_MEMBERS if name in rows}
    least = min((loss for loss in losses.values() if math.isfinite(loss)), default=math.nan)
    return {name: 100 * (loss / least - 1) for name, loss in losses.items()}


def any_usual_size_will_do(above: Mapping[str, float]) -> bool:
    """Whether 8, 16 and 32 channels a group are all close to the best size."""
    return all(above.get(name, math.nan) <= CLOSE for name in USUAL)


def sizes_tables(found: Arms) -> list[Table]:
    """Every group size in every arm that tried them: one table, or none."""
    above = {arm: sizes for arm, rows in found.items() if (sizes := above_best_size(rows))}
    return [_sizes_table(above)] if above else []


def _sizes_table(above: Mapping[Arm, Mapping[str, float]]) -> Table:
    body = [
        (str(arm), *(minus(f"{values[name]:+.1f}") if name in values else "–" for name in SWEEP_MEMBERS))
        for arm, values in above.items()
    ]
    others = [values for values in above.values() if not any_usual_size_will_do(values)]
    small = sum(0 in (values.get(name) for name in SWEEP_MEMBERS[:3]) for values in others)
    note = (
        f"By how many per cent the test loss lies above that of the best size. One training each, seed {SEED}, at "
        "the rate with the least validation loss. Groups of fully connected layers have four elements or more. "
        f"Sizes 8, 16 and 32 are all within {CLOSE:g}% of the best size in "
        f"{len(above) - len(others)} of {len(above)} arms. Of the other {len(others)}, the best size is 1, 2 or 4 in "
        f"{small}."
    )
    header = ("arm", "1", *(name.removeprefix("channels-") for name in SWEEP_MEMBERS[1:-1]), "all channels")
    return Table("One group size for all layers", header, tuple(body), note)
