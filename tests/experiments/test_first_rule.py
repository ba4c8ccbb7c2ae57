"""The first rule: its solve, on made-up networks whose answer is known, and its least-squares line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.common.first_rule import (
    CLOSE_ENOUGH,
    ISOMETRY_TOLERANCE,
    MAX_BUDGET,
    MAX_HALVINGS,
    MAX_STEPS,
    POSITION_TOLERANCE,
    Groups,
    sees_only_the_mean,
    solve,
    trend,
    trend_error,
)
from idealgroups.theory.curves import Curves, Moments, curves
from idealgroups.theory.formulas import conv_gain, divisors

CHANNELS = 64


@dataclass(frozen=True)
class Made:
    curves: Mapping[str, Curves]
    trend: float
    trend_error: float
    slack: float = 0.0


class World:
    """Layers with the closed-form gain; the trend falls with the sum of the gains."""

    def __init__(
        self,
        mean_shares: list[float],
        slope: float,
        sensitivity: float = 1.0,
        pooled: bool = True,
        trend_error: float = 0.0,
    ) -> None:
        self.slope, self.sensitivity, self.trend_error, self.passes = slope, sensitivity, trend_error, 0
        widths = divisors(CHANNELS)
        self.curves = {
            f"layer{i}": Curves(
                np.array(widths),
                np.array([conv_gain(c, rho, CHANNELS) for c in widths]),
                np.array([2.0 if pooled and c == 1 else 0.0 for c in widths]),
                positions=64,
                mean_share=rho,
                flat=False,
            )
            for i, rho in enumerate(mean_shares)
        }

    def trend(self, groups: Groups) -> float:
        gains = sum(float(self.curves[n].gain[self.curves[n].at(g)]) for n, g in groups.items())
        return self.slope - self.sensitivity * gains

    def observe(self, groups: Groups) -> Made:
        self.passes += 1
        return Made(self.curves, self.trend(groups), self.trend_error)

    def solve(self) -> tuple[float, Groups, float]:
        self.solution = solve(self.observe, lambda name, budget: budget, 0.0, dict.fromkeys(self.curves, 1))
        point = self.solution.point
        return point.budget, point.groups, point.measured.trend


def test_where_early_gradients_are_the_larger_ones_already_groups_may_cost_the_tolerance_and_no_more() -> None:
    _, groups, trend = World([0.3] * 5, slope=-0.5).solve()
    assert -0.5 - ISOMETRY_TOLERANCE <= trend < -0.5
    assert set(groups.values()) == {8}  # 5·b(8) = 0.17, 5·b(4) = 0.37

    _, groups, trend = World([0.9] * 5, slope=-0.5, sensitivity=100).solve()
    assert set(groups.values()) == {1}
    assert trend == -0.5


def test_the_solution_says_how_far_the_trend_may_fall() -> None:
    def limit(slope: float, pooled: bool) -> tuple[float, float]:
        world = World([0.3] * 5, slope, pooled=pooled)
        world.solve()
        return world.solution.tolerance, world.solution.lowest_trend

    assert limit(0.0, pooled=True) == (ISOMETRY_TOLERANCE, -ISOMETRY_TOLERANCE)
    assert limit(-0.5, pooled=True) == (ISOMETRY_TOLERANCE, -0.5 - ISOMETRY_TOLERANCE)
    assert limit(0.0, pooled=False) == (POSITION_TOLERANCE, -POSITION_TOLERANCE)
    assert limit(-3, pooled=False) == (POSITION_TOLERANCE, -3 - ISOMETRY_TOLERANCE)


def test_where_the_loss_sees_positions_the_trend_may_fall_to_a_factor_of_ten() -> None:
    pooled, dense = (World([0.318] * 30, slope=1.0, pooled=pooled).solve() for pooled in (True, False))
    assert set(pooled[1].values()) == {8}  # 1 - 30·b(8) = 0.02, 1 - 30·b(4) = -1.4
    assert set(dense[1].values()) == {16}
    assert dense[2] == pytest.approx(1 - 30 * conv_gain(4, 0.318, CHANNELS))
    assert dense[2] >= -POSITION_TOLERANCE

    _, _, trend = World([0.9] * 5, slope=-3, pooled=False).solve()  # below it anyway: as everywhere
    assert trend >= -3 - ISOMETRY_TOLERANCE


def test_where_log_u_scatters_the_trend_may_fall_by_half_its_standard_error() -> None:
    def limit(slope: float, pooled: bool, trend_error: float) -> tuple[float, float]:
        world = World([0.318] * 10, slope, pooled=pooled, trend_error=trend_error)
        world.solve()
        return world.solution.tolerance, world.solution.lowest_trend

    assert limit(1.0, pooled=True, trend_error=0.4) == (ISOMETRY_TOLERANCE, -ISOMETRY_TOLERANCE)
    assert limit(1.0, pooled=True, trend_error=1.6) == (0.8, -0.8)
    assert limit(1.0, pooled=False, trend_error=1.6) == (POSITION_TOLERANCE, -POSITION_TOLERANCE)
    assert limit(-1.0, pooled=True, trend_error=1.6) == (0.8, -1.8)

    groups = {error: World([0.318] * 10, 1.0, trend_error=error).solve()[1]["layer0"] for error in (0.4, 1.6)}
    assert groups == {0.4: 16, 1.6: 32}  # 1 - 10·b(4) = 0.2, 1 - 10·b(2) = -0.7


def test_a_flat_trend_gives_as_many_groups_as_the_largest_budget_allows() -> None:
    budget, groups, _ = World([0.318] * 5, slope=0.0, sensitivity=0.0).solve()
    assert budget == MAX_BUDGET
    assert set(groups.values()) == {CHANNELS // 2}  # two channels a group, at least


def test_the_answer_is_the_finest_uniform_width_that_stays_isometric() -> None:
    # Ten layers alike: the trend at c is 1 - 10·b(c). b(4) = 0.080, b(2) = 0.170: 4 holds at 0.2, 2 falls to -0.7.
    _, groups, trend = World([0.318] * 10, slope=1.0).solve()
    assert set(groups.values()) == {CHANNELS // 4}
    assert trend == pytest.approx(1 - 10 * conv_gain(4, 0.318, CHANNELS))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0.01, 0.95), min_size=1, max_size=40),
    st.floats(-1, 6),
    st.floats(0, 3),
)
def test_never_below_the_tolerance_unless_one_group_is_and_never_too_many_passes(
    mean_shares: list[float], slope: float, sensitivity: float
) -> None:
    world = World(mean_shares, slope, sensitivity)
    budget, groups, trend = world.solve()
    assert world.passes <= 2 * (MAX_HALVINGS + MAX_STEPS) + 3
    assert trend >= min(0, slope) - ISOMETRY_TOLERANCE
    assert trend == world.trend(groups)
    for name, number in groups.items():
        assert world.curves[name].amplification[world.curves[name].at(number)] <= budget + 1e-9


def test_stops_when_close_enough() -> None:
    world = World(list(np.linspace(0.05, 0.9, 50)), slope=3.0)
    _, _, trend = world.solve()
    assert -ISOMETRY_TOLERANCE <= trend <= -ISOMETRY_TOLERANCE + 2 * CLOSE_ENOUGH


def test_a_trend_that_first_rises_does_not_end_the_search_at_one_group() -> None:
    # Coherent gradients in front of a pool: T(one group) < -δ, yet T is above it for moderate groups (docs/theory.md).
    class Rising(World):
        def trend(self, groups: Groups) -> float:
            gains = sum(float(self.curves[n].gain[self.curves[n].at(g)]) for n, g in groups.items())
            return -0.5 + 4 * gains - 3 * gains**2

    world = Rising(list(np.linspace(0.05, 0.9, 20)), slope=0.0)
    _, groups, trend = world.solve()
    assert trend >= -ISOMETRY_TOLERANCE
    assert max(groups.values()) > 1


lines = st.tuples(st.integers(2, 60), st.floats(-5, 5), st.floats(-5, 5))
series = st.lists(st.floats(-20, 20), min_size=2, max_size=40).map(np.array)


def test_trend_error_is_that_of_the_textbook() -> None:
    y = np.array([0.0, 1.0, 0.0, 1.0])  # slope 0.2, residuals -0.2, 0.6, -0.6, 0.2, so s² = 0.8/2 and Σ(x - x̄)² = 5
    assert trend_error(y) == pytest.approx(3 * math.sqrt(0.4 / 5))
    assert trend_error(np.array([0.0, 1.0])) == trend_error(np.array([])) == 0


def test_trend_error_is_the_deviation_of_the_trend_under_noise() -> None:
    rng = np.random.default_rng(0)
    noisy = rng.normal(0, 0.7, (4000, 20)) + np.linspace(1, -2, 20)
    assert np.std([trend(y) for y in noisy]) == pytest.approx(0.7 * 19 / math.sqrt(20 * 399 / 12), rel=0.03)
    assert np.mean([trend_error(y) ** 2 for y in noisy]) == pytest.approx(np.var([trend(y) for y in noisy]), rel=0.05)


@given(lines)
def test_trend_is_exact_on_lines(line: tuple[int, float, float]) -> None:
    n, intercept, slope = line
    values = intercept + slope * np.arange(n)
    assert trend(values) == pytest.approx(values[-1] - values[0], abs=1e-9)


@given(series, st.floats(-10, 10), st.floats(-10, 10))
def test_trend_ignores_a_shift_and_follows_a_scale(values: np.ndarray, shift: float, scale: float) -> None:
    assert trend(values * scale + shift) == pytest.approx(trend(values) * scale, abs=1e-8)


@given(series)
def test_trend_is_the_least_squares_line_and_turns_with_the_order(values: np.ndarray) -> None:
    slope = np.polyfit(np.arange(len(values)), values, 1)[0]
    assert trend(values) == pytest.approx(slope * (len(values) - 1), abs=1e-7)
    assert trend(values[::-1]) == pytest.approx(-trend(values), abs=1e-9)


def test_trend_of_nearly_nothing() -> None:
    assert trend(np.array([])) == trend(np.array([3.0])) == 0


@given(st.integers(2, 60), st.integers(0, 60))
def test_a_gain_shifts_the_trend_most_in_the_middle_of_a_chain(count: int, below: int) -> None:
    below = min(below, count)
    shift = trend(np.where(np.arange(count) < below, 1.0, 0.0))
    assert shift == pytest.approx(-6 * below * (count - below) / (count * (count + 1)))


@pytest.mark.parametrize(
    ("constant", "positions", "pooled"), [(True, 64, True), (False, 64, False), (False, 4, False), (False, 1, True)]
)
def test_a_gradient_behind_a_global_pool_is_told_from_one_that_sees_positions(
    constant: bool, positions: int, pooled: bool
) -> None:
    generator = np.random.default_rng(0)
    shape = (32, 16, positions)
    z = generator.normal(size=shape)
    gradient = generator.normal(size=(32, 16, 1 if constant else positions)) * (z > 0)  # behind a ReLU
    moments = Moments(
        z.mean(-1), z.var(-1), positions, 1e-5, gradient.sum(-1), (gradient**2).sum(-1), (gradient * z).sum(-1)
    )
    assert sees_only_the_mean(curves([moments])) == pooled
