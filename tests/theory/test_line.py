"""The robust line: against SciPy, by hand, and what one value that is far off does to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import theilslopes

from experiments.common.first_rule import trend as least_squares_trend
from idealgroups.theory.line import spread, trend, trend_error

series = st.lists(st.floats(-20, 20), min_size=2, max_size=40).map(np.array)


@given(series)
def test_trend_is_the_theil_sen_slope(values: np.ndarray) -> None:
    assert trend(values) == pytest.approx(theilslopes(values)[0] * (len(values) - 1), abs=1e-9)
    assert trend(values[::-1]) == pytest.approx(-trend(values), abs=1e-9)


@given(series, st.floats(-10, 10), st.floats(-10, 10))
def test_trend_and_spread_ignore_a_shift_and_follow_a_scale(values: np.ndarray, shift: float, scale: float) -> None:
    assert trend(values * scale + shift) == pytest.approx(trend(values) * scale, abs=1e-8)
    assert spread(values * scale + shift) == pytest.approx(spread(values) * abs(scale), abs=1e-8)


def test_one_value_at_the_end_hardly_moves_the_line() -> None:
    """What a head does to least squares it does not do here."""
    rng = np.random.default_rng(0)
    body = np.linspace(0, -1, 20) + rng.normal(0, 0.2, 20)
    with_head = np.append(body, 3.0)
    assert abs(trend(with_head) - trend(body)) < 0.2
    assert least_squares_trend(with_head) - least_squares_trend(body) > 0.4


def test_trend_error_by_hand() -> None:
    # 0, 1, 0, 1: slopes -1, 0, 0, 1/3, 1, 1; Kendall's variance 4·3·13/18 = 8.67, so 1.47 ranks on either side of 2.5:
    # at rank 1.03 the slope is 0, at 3.97 it is 0.98.
    assert trend_error(np.array([0.0, 1.0, 0.0, 1.0])) == pytest.approx(3 * 0.981 / 2, abs=0.01)
    assert trend_error(np.array([0.0, 1.0])) == trend_error(np.array([])) == 0


@pytest.mark.parametrize("count", [12, 40])
def test_trend_error_is_the_deviation_of_the_trend_under_noise(count: int) -> None:
    rng = np.random.default_rng(0)
    noisy = rng.normal(0, 0.7, (1500, count)) + np.linspace(1, -2, count)
    deviation = np.std([trend(y) for y in noisy])
    assert np.mean([trend_error(y) for y in noisy]) == pytest.approx(deviation, rel=0.1)


def test_of_nearly_nothing() -> None:
    assert trend(np.array([])) == trend(np.array([3.0])) == spread(np.array([])) == spread(np.array([3.0])) == 0
    assert spread(np.array([1.0, 3.0])) == 1
