"""From a budget or a wanted number to a divisor: never over the budget, never too few elements."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idealgroups.theory.curves import Curves
from idealgroups.theory.formulas import (
    MIN_GROUP_CHANNELS,
    MIN_GROUP_ELEMENTS,
    RELU_MEAN_SHARE,
    conv_gain,
    divisors,
)
from idealgroups.theory.grouping import (
    ideal_groups,
    largest_divisor,
    least_elements,
    most_groups_within,
    safe_groups,
    thresholds,
)

channel_counts = st.integers(1, 300)
position_counts = st.sampled_from([1, 2, 3, 4, 49, 1000])
budgets = st.floats(0, 3)


@st.composite
def any_curves(draw: st.DrawFn) -> Curves:
    """Curves of any shape, falling or not, also infinite ones; zero for one group."""
    widths = divisors(draw(channel_counts))
    gains = st.one_of(st.floats(-1, 3), st.just(math.inf))
    curve = st.lists(gains, min_size=len(widths) - 1, max_size=len(widths) - 1)
    amplification, projection = (np.array([*draw(curve), 0.0]) for _ in range(2))
    positions, flat = draw(position_counts), draw(st.booleans())
    return Curves(np.array(widths), amplification, projection, positions, mean_share=0.3, flat=flat)


def conv_curves(channels: int, positions: int = 1000) -> Curves:
    """The closed form of a convolution, without projection loss."""
    widths = divisors(channels)
    amplification = np.array([conv_gain(c, num_channels=channels) for c in widths])
    return Curves(np.array(widths), amplification, np.zeros(len(widths)), positions, RELU_MEAN_SHARE, flat=False)


def worst(curves: Curves, index: int) -> float:
    return float(max(curves.amplification[index], curves.projection[index]))


# --- the budget ------------------------------------------------------------------------------------------------------


@given(any_curves(), budgets)
def test_the_budget_is_never_exceeded(curves: Curves, budget: float) -> None:
    """Neither by the choice nor by a coarser grouping, and groups with too few elements do not occur but alone."""
    least = least_elements(curves.flat)
    index = curves.at(most_groups_within(curves, budget))
    assert all(worst(curves, i) <= budget + 1e-9 for i in range(index, len(curves.group_sizes) - 1))
    width = int(curves.group_sizes[index])
    assert width == curves.num_channels or (width * curves.positions >= least and width >= 2)


@given(any_curves(), budgets)
def test_as_many_groups_as_the_budget_allows(curves: Curves, budget: float) -> None:
    """The next finer divisor is over the budget or unsafe."""
    least = least_elements(curves.flat)
    index = curves.at(most_groups_within(curves, budget))
    if index > 0:
        finer = int(curves.group_sizes[index - 1])
        unsafe = finer * curves.positions < least or finer < MIN_GROUP_CHANNELS
        assert unsafe or worst(curves, index - 1) > budget


@given(any_curves(), budgets, budgets)
def test_a_larger_budget_never_gives_fewer_groups(curves: Curves, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert most_groups_within(curves, low) <= most_groups_within(curves, high)


@given(any_curves(), budgets)
def test_ideal_lies_between_the_choice_and_the_next_finer_divisor(curves: Curves, budget: float) -> None:
    chosen = most_groups_within(curves, budget)
    finer = [g for g in divisors(curves.num_channels) if g > chosen]
    assert chosen <= ideal_groups(curves, budget) <= (finer[0] if finer else chosen)


@given(st.sampled_from([16, 48, 64, 256]), st.floats(0.001, 0.35))
def test_ideal_is_the_closed_form_where_that_holds(channels: int, budget: float) -> None:
    """For b = -log(1 - ρ/c) + log(1 - ρ/C) the real-valued number of groups is exact between divisors, up to c = 2."""
    curves = conv_curves(channels)
    shrunk = budget - math.log1p(-RELU_MEAN_SHARE / channels)
    expected = channels * -math.expm1(-shrunk) / RELU_MEAN_SHARE
    assert ideal_groups(curves, budget) == pytest.approx(min(expected, channels / 2), rel=0.03)


def test_ideal_knows_how_small_a_group_may_be() -> None:
    assert ideal_groups(conv_curves(48, positions=1), 0.38) == 1.5  # 32 elements a group
    assert ideal_groups(conv_curves(64), 0.38) == 32  # two channels a group
    assert ideal_groups(conv_curves(8, positions=1), 0.38) == 1


def test_most_groups_by_hand() -> None:
    curves = conv_curves(64)
    assert curves.amplification == pytest.approx([0.378, 0.168, 0.078, 0.036, 0.015, 0.005, 0], abs=1e-3)
    assert [most_groups_within(curves, e) for e in (0, 0.01, 0.1, 0.3, 0.38)] == [1, 2, 16, 32, 32]
    assert most_groups_within(conv_curves(64, positions=1), 0.38) == 2  # 32 channels are 32 elements
    flat = replace(conv_curves(512, positions=1), flat=True)
    assert most_groups_within(flat, 0.38) == 4  # 128 channels are 128 elements


def test_projection_is_bounded_by_itself() -> None:
    """In front of a global pool the loss cancels the amplification; their difference must not decide."""
    amplification, projection = np.array([1.0, 0.1, 0.0]), np.array([1.0, 0.2, 0.0])
    curves = Curves(np.array([1, 2, 4]), amplification, projection, 100, 0.3, flat=False)
    assert curves.gain == pytest.approx([0, -0.1, 0])
    assert [most_groups_within(curves, e) for e in (0.05, 0.15, 0.5, 1)] == [1, 1, 2, 2]


def test_one_bad_divisor_stops_the_search() -> None:
    curves = Curves(np.array([1, 2, 4]), np.array([0.1, 0.5, 0.0]), np.zeros(3), 100, 0.3, flat=False)
    assert most_groups_within(curves, 0.2) == 1


def test_one_channel() -> None:
    curves = Curves(np.array([1]), np.zeros(1), np.zeros(1), 100, 0.3, flat=False)
    assert most_groups_within(curves, 0.1) == ideal_groups(curves, 0.1) == 1


# --- safe groups -----------------------------------------------------------------------------------------------------


@given(channel_counts, position_counts, st.data())
def test_safe_groups(channels: int, positions: int, data: st.DataObject) -> None:
    wanted = data.draw(st.sampled_from(divisors(channels)))
    groups, note = safe_groups(channels, positions, wanted)
    assert channels % groups == 0
    assert groups <= wanted
    if channels * positions >= MIN_GROUP_ELEMENTS:
        assert channels // groups * positions >= MIN_GROUP_ELEMENTS
        finer = [g for g in divisors(channels) if groups < g <= wanted]
        assert all(channels // g * positions < MIN_GROUP_ELEMENTS for g in finer)
        assert (note == "") == (groups == wanted)
    else:
        assert groups == 1
        assert note


@pytest.mark.parametrize(
    ("channels", "positions", "wanted", "groups", "says"),
    [
        (4, 1, 4, 1, "4 groups would have 1 element each"),  # BatchNorm1d(4) turned into GN(4, 4)
        (64, 1, 32, 16, "32 groups would have 2 elements each"),
        (64, 49, 64, 64, ""),
        (7, 1, 7, 1, "7 groups would have 1 element each"),
        (1, 1, 1, 1, "only 1 element to normalize: the output is constant"),
        (3, 1, 1, 1, "only 3 elements to normalize: little or no gradient passes"),
        (2, 2, 2, 1, "2 groups would have 2 elements each"),
    ],
)
def test_safe_groups_by_hand(channels: int, positions: int, wanted: int, groups: int, says: str) -> None:
    chosen, note = safe_groups(channels, positions, wanted)
    assert chosen == groups
    assert note.startswith(says)
    assert bool(note) == bool(says)


@given(channel_counts, st.floats(-5, 400))
def test_largest_divisor(channels: int, wanted: float) -> None:
    groups = largest_divisor(channels, wanted)
    assert channels % groups == 0
    assert groups <= max(wanted, 1)
    assert not any(channels % g == 0 for g in range(groups + 1, math.floor(min(wanted, channels)) + 1))


def test_thresholds_by_hand() -> None:
    amplification, projection = np.array([0.9, 0.1, 0.3, 0.0]), np.array([0.0, 0.2, 0.1, 0.0])
    curves = Curves(np.array([1, 2, 4, 8]), amplification, projection, 100, 0.3, flat=False)
    assert thresholds(curves).tolist() == [math.inf, 0.3, 0.3, 0.0]  # a coarser grouping needs 0.3; one channel: never


@given(any_curves(), budgets)
def test_a_grouping_is_allowed_from_its_threshold_on(curves: Curves, budget: float) -> None:
    allowed = thresholds(curves) <= budget + 1e-9
    assert most_groups_within(curves, budget) == curves.num_channels // curves.group_sizes[allowed].min()
