"""Statistics of paired comparisons; scipy does the work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idealgroups.errors import IdealGroupsError

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 9999


def _scipy_stats() -> Any:
    """scipy.stats, which only a report needs."""
    try:
        from scipy import stats
    except ImportError:
        raise IdealGroupsError("the report of a study needs scipy; install idealgroups[study].") from None
    return stats


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Mean of ``values`` with its 95% bootstrap interval (bias-corrected and accelerated, ``scipy.stats.bootstrap``).

    Of equal values, and of one, the interval is the value itself; where one is infinite, it is not known: NaN.

    >>> bootstrap_interval([2.0, 2.0, 2.0])
    Interval(mean=2.0, low=2.0, high=2.0)
    """
    x = np.asarray(values, dtype=float)
    with np.errstate(invalid="ignore"):  # infinite values of both signs
        mean = float(x.mean())
    if not np.all(np.isfinite(x)):
        return Interval(mean, math.nan, math.nan)
    if len(x) < 2 or np.ptp(x) <= 1e-12 * max(1.0, abs(mean)):
        return Interval(mean, mean, mean)
    result = _scipy_stats().bootstrap(
        (x,), np.mean, confidence_level=CONFIDENCE, n_resamples=RESAMPLES, rng=np.random.default_rng(seed)
    )
    low, high = result.confidence_interval
    return Interval(mean, float(low), float(high))


def permutation_p(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p of a paired permutation test on the mean difference, by ``scipy.stats.permutation_test``.

    Signs are flipped; exact where all 2^n sign patterns are few enough, so n pairs
    that all point the same way give p = 2 / 2^n, and one pair shows nothing, p = 1:

    >>> permutation_p([1.0, 2.0, 1.5, 1.2, 0.9])
    0.0625
    """
    x = finite_differences(differences)
    if len(x) < 2 or not np.any(x):
        return 1.0
    result = _scipy_stats().permutation_test(
        (x,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        alternative="two-sided",
        rng=np.random.default_rng(seed),
    )
    return min(float(result.pvalue), 1.0)


def finite_differences(differences: Sequence[float]) -> Floats:
    """The differences, or their signs where one is infinite: a diverged run is worse than any loss, by no amount.

    >>> finite_differences([-0.5, -np.inf]).tolist()
    [-1.0, -1.0]
    """
    x = np.asarray(differences, dtype=float)
    return x if np.all(np.isfinite(x)) else np.sign(x)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p values in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def mean_ranks(losses: Floats) -> Floats:
    """Mean rank of each strategy, shape (strategies,), over the rows of ``losses`` (cases, strategies); 1 is best.

    Ties share their mean rank, an infinite loss comes last.

    >>> mean_ranks(np.array([[1.0, 2.0, 3.0], [1.0, 1.0, np.inf]])).tolist()
    [1.25, 1.75, 3.0]
    """
    ranks: Floats = _scipy_stats().rankdata(losses, axis=1).mean(axis=0)
    return ranks


def rate_range(curve: Mapping[float, float], limit: float) -> float:
    """Decades of learning rates whose validation loss is at most ``limit``, around the best one.

    ``curve`` maps rates to losses; between two rates the loss is taken as linear in log rate, beyond the grid nothing
    is known, so a range that reaches the grid's end is a lower bound.

    >>> rate_range({0.01: 2.0, 0.1: 1.0, 1.0: 2.0}, limit=1.5)
    1.0
    """
    rates = sorted(curve)
    losses = [curve[rate] for rate in rates]
    if not rates or min(losses) > limit:
        return 0.0
    logs = np.log10(rates)
    best = int(np.argmin(losses))

    def reach(step: int) -> float:
        here = best
        while 0 <= here + step < len(rates):
            inside, outside = losses[here], losses[here + step]
            if outside > limit:
                share = (limit - inside) / (outside - inside) if math.isfinite(outside) else 0.0
                return float(abs(logs[here] - logs[best]) + share * abs(logs[here + step] - logs[here]))
            here += step
        return float(abs(logs[here] - logs[best]))

    return reach(-1) + reach(1)
