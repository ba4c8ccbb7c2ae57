"""A robust line through the relative gradients of the weight layers. NumPy only; derived in ``docs/theory.md``."""

from __future__ import annotations

import math

import numpy as np

from .formulas import Floats


def trend(values: Floats) -> float:
    """Return T, the rise of the Theil-Sen line of ``values`` (shape (L,)) from the first to the last; 0 for L < 2.

    The slope is the median of the slopes between all pairs of points (Theil 1950, Sen 1968). One value that is far
    off, at the end of the line too, moves it by little.

    >>> trend(np.array([0.0, 1.0, 2.0, 3.0, 100.0]))
    4.0
    """
    slopes = _pairwise_slopes(values)
    return float((len(values) - 1) * np.median(slopes)) if len(slopes) else 0.0


def trend_error(values: Floats) -> float:
    """Return the standard error of :func:`trend`; 0 for L < 3.

    Half the width of Sen's distribution-free confidence interval at one standard deviation: Kendall's statistic has the
    variance n(n - 1)(2n + 5) / 18 if the values are independent (Sen 1968), and the interval's ends are the slopes that
    many ranks off the middle.

    >>> round(trend_error(np.array([0.0, 1.0, 0.0, 1.0])), 3)
    1.472
    """
    n = len(values)
    if n < 3:
        return 0.0
    slopes = np.sort(_pairwise_slopes(values))
    ranks = math.sqrt(n * (n - 1) * (2 * n + 5) / 18) / 2
    middle = (len(slopes) - 1) / 2
    low, high = np.interp([middle - ranks, middle + ranks], np.arange(len(slopes)), slopes)
    return float((n - 1) * (high - low) / 2)


def spread(values: Floats) -> float:
    """Return the standard deviation of ``values``, shape (L,), over layers; 0 is isometric."""
    return float(np.std(values)) if len(values) else 0.0


def _pairwise_slopes(values: Floats) -> Floats:
    first, second = np.triu_indices(len(values), k=1)
    slopes: Floats = (values[second] - values[first]) / (second - first)
    return slopes
