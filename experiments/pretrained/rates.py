"""The rate of each arm: the best of those tried on one seed, and the only one on the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Record = dict[str, Any]

TUNING_SEED = 0
SAME = ("part", "network", "arm", "batch")
"""What runs have in common that differ in rate and seed alone."""


def best_rate(records: Iterable[Record]) -> float | None:
    """The rate with the best last score on the tuning seed; None where it has not run."""
    found = {r["rate"]: list(r["scores"].values())[-1] for r in records if r["seed"] == TUNING_SEED}
    return max(found, key=lambda rate: found[rate]) if found else None


def wanted(what: Record, records: Iterable[Record]) -> bool:
    """Whether this run is one of the study: on other seeds only the best rate of the tuning seed is."""
    if "rate" not in what or what["seed"] == TUNING_SEED:
        return True
    best = best_rate(r for r in records if all(r.get(key) == what.get(key) for key in SAME))
    return best is None or what["rate"] == best
