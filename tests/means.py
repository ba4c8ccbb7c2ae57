"""Standard errors: the tolerance of every test that simulates something."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor


def assert_mean(values: np.ndarray | Tensor, expected: float, bias: float = 0.0) -> None:
    """The mean of independent ``values`` is ``expected``: to five standard errors, and a known relative ``bias``."""
    values = np.asarray(values, dtype=float).ravel()
    error = values.std(ddof=1) / math.sqrt(values.size)
    assert abs(values.mean() - expected) <= 5 * error + bias * abs(expected) + 1e-12, (values.mean(), expected, error)
