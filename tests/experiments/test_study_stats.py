from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.study.stats import bootstrap_interval, holm, mean_ranks, permutation_p, rate_range

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=20)
losses = st.floats(0.1, 10)


@given(probabilities)
def test_holm_is_between_the_p_values_and_bonferroni_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


def test_the_permutation_test_is_exact_for_few_pairs() -> None:
    # sums of ±1 ±2 ±4: only +7 and -7 are as far from zero as 7
    assert permutation_p([1.0, 2.0, 4.0]) == 0.25
    # sums of ±1 ±1 ±1 ±1 at least 2 in size: all but the 6 that cancel, of 16
    assert permutation_p([1.0, 1.0, 1.0, -1.0]) == pytest.approx(10 / 16)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8))
def test_the_permutation_test_does_not_depend_on_the_sign(differences: list[float]) -> None:
    assert permutation_p(differences) == pytest.approx(permutation_p([-d for d in differences]))


def test_differences_to_a_diverged_run_count_by_their_sign() -> None:
    assert permutation_p([-math.inf] * 6) == pytest.approx(2 / 64)
    assert permutation_p([0.0, 0.0]) == permutation_p([3.0]) == 1.0
    assert bootstrap_interval([-math.inf, -1.0]).mean == -math.inf


def test_the_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        interval = bootstrap_interval(list(rng.normal(1.0, 0.5, 25)), seed=trial)
        assert interval.low <= interval.mean <= interval.high
        covered += interval.low <= 1.0 <= interval.high
    assert covered >= 50  # 95% of 60 is 57; for 25 values the bootstrap is a little narrow


def test_the_interval_of_a_diverged_run_is_unknown() -> None:
    interval = bootstrap_interval([1.0, math.inf])
    assert interval.mean == math.inf
    assert math.isnan(interval.low)


@given(st.lists(st.lists(losses, min_size=3, max_size=3), min_size=1, max_size=6))
def test_ranks_share_out_the_same_sum(table: list[list[float]]) -> None:
    assert mean_ranks(np.array(table)).sum() == pytest.approx(6)


@given(st.dictionaries(st.sampled_from([0.001, 0.01, 0.1, 1.0, 10.0]), losses, min_size=1), st.floats(1, 3))
def test_a_range_grows_with_the_limit_and_stays_within_the_grid(curve: dict[float, float], factor: float) -> None:
    best = min(curve.values())
    narrow, wide = rate_range(curve, best), rate_range(curve, factor * best)
    assert 0 <= narrow <= wide + 1e-12
    assert wide <= math.log10(max(curve) / min(curve)) + 1e-12


def test_a_range_by_hand() -> None:
    curve = {0.01: 1.2, 0.1: 1.0, 1.0: 1.1, 10.0: math.inf}
    # left: half way to 1.2; right: all the way to 1.0, and no step towards what diverged
    assert rate_range(curve, 1.1) == pytest.approx(0.5 + 1.0)
    assert rate_range(curve, 0.9) == 0.0
