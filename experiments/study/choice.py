"""Every choice the study makes, all on validation data: the learning rate of a strategy, the winner of a sweep."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .config import SWEEP_MEMBERS, Arm
from .store import Result


@dataclass(frozen=True)
class Rate:
    """A strategy's best learning rate in one arm and its validation loss there, the mean over the tuning seeds."""

    learning_rate: float
    val_loss: float


def rate_curve(results: Iterable[Result]) -> dict[float, float]:
    """Mean validation loss at each learning rate, of one strategy in one arm; infinite where a seed diverged.

    Only seeds that were trained at every rate count: the others came after the choice, at the best rate alone.
    """
    losses: dict[float, dict[int, float]] = defaultdict(dict)
    for result in results:
        losses[result.run.learning_rate][result.run.seed] = (
            result.val_loss if math.isfinite(result.val_loss) else math.inf
        )
    if not losses:
        return {}
    common = set.intersection(*(set(seeds) for seeds in losses.values()))
    return {
        rate: float(np.mean([seeds[s] for s in sorted(common)])) for rate, seeds in sorted(losses.items()) if common
    }


def best_rates(results: Iterable[Result]) -> dict[tuple[Arm, str], Rate]:
    """The rate of the lowest validation loss for every arm and strategy that has a finite one."""
    groups: dict[tuple[Arm, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.run.arm, result.run.strategy].append(result)
    best = {}
    for key, group in groups.items():
        curve = {rate: loss for rate, loss in rate_curve(group).items() if math.isfinite(loss)}
        if curve:
            rate = min(curve, key=lambda r: curve[r])
            best[key] = Rate(rate, curve[rate])
    return best


def sweep_winner(results: Sequence[Result]) -> str | None:
    """The uniform choice with the lowest validation loss at its best rate, in one arm; None before all are there."""
    best = {strategy: rate.val_loss for (_, strategy), rate in best_rates(results).items() if strategy in SWEEP_MEMBERS}
    tried = {result.run.strategy for result in results}
    if not best or not tried.issuperset(SWEEP_MEMBERS):
        return None
    return min(best, key=lambda name: best[name])
