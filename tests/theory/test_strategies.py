"""Rules for the number of groups: never over the budget, never under four elements, and the habits by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idealgroups.errors import IdealGroupsError
from idealgroups.theory import strategies
from idealgroups.theory.curves import Curves
from idealgroups.theory.formulas import (
    MIN_GROUP_CHANNELS,
    MIN_GROUP_ELEMENTS,
    RELU_MEAN_SHARE,
    conv_gain,
    divisors,
)
from idealgroups.theory.strategies import (
    STRATEGIES,
    block_ideal_groups,
    check_strategy,
    habit,
    ideal_groups,
    largest_divisor,
    layer_budget,
    most_groups_within,
    safe_groups,
)

channel_counts = st.integers(1, 300)
position_counts = st.sampled_from([1, 2, 3, 4, 49, 1000])
budgets = st.floats(0, 3)
least_elements = st.sampled_from([4, 32, 128])


@st.composite
def any_curves(draw: st.DrawFn) -> Curves:
    """Curves of any shape, falling or not, also infinite ones; zero for one group."""
    widths = divisors(draw(channel_counts))
    gains = st.one_of(st.floats(-1, 3), st.just(math.inf))
    curve = st.lists(gains, min_size=len(widths) - 1, max_size=len(widths) - 1)
    amplification, projection = (np.array([*draw(curve), 0.0]) for _ in range(2))
    return Curves(np.array(widths), amplification, projection, draw(position_counts), mean_share=0.3, flat=False)


def conv_curves(channels: int, positions: int = 1000) -> Curves:
    """The closed form of a convolution, without projection loss."""
    widths = divisors(channels)
    amplification = np.array([conv_gain(c, num_channels=channels) for c in widths])
    return Curves(np.array(widths), amplification, np.zeros(len(widths)), positions, RELU_MEAN_SHARE, flat=False)


def worst(curves: Curves, index: int) -> float:
    return float(max(curves.amplification[index], curves.projection[index]))


# --- the budget ------------------------------------------------------------------------------------------------------


@given(any_curves(), budgets, least_elements)
def test_the_budget_is_never_exceeded(curves: Curves, budget: float, least: int) -> None:
    """Neither by the choice nor by a coarser grouping, and groups with too few elements do not occur but alone."""
    index = curves.at(most_groups_within(curves, budget, least))
    assert all(worst(curves, i) <= budget + 1e-9 for i in range(index, len(curves.channels_per_group) - 1))
    width = int(curves.channels_per_group[index])
    assert width == curves.num_channels or (width * curves.positions >= least and width >= 2)


@given(any_curves(), budgets, least_elements)
def test_as_many_groups_as_the_budget_allows(curves: Curves, budget: float, least: int) -> None:
    """The next finer divisor is over the budget or unsafe."""
    index = curves.at(most_groups_within(curves, budget, least))
    if index > 0:
        finer = int(curves.channels_per_group[index - 1])
        unsafe = finer * curves.positions < least or finer < MIN_GROUP_CHANNELS
        assert unsafe or worst(curves, index - 1) > budget


@given(any_curves(), budgets, budgets)
def test_a_larger_budget_never_gives_fewer_groups(curves: Curves, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert most_groups_within(curves, low, 32) <= most_groups_within(curves, high, 32)


@given(any_curves(), budgets)
def test_ideal_lies_between_the_choice_and_the_next_finer_divisor(curves: Curves, budget: float) -> None:
    chosen = most_groups_within(curves, budget, 32)
    finer = [g for g in divisors(curves.num_channels) if g > chosen]
    assert chosen <= ideal_groups(curves, budget, 32) <= (finer[0] if finer else chosen)


@given(st.sampled_from([16, 48, 64, 256]), st.floats(0.001, 0.35))
def test_ideal_is_the_closed_form_where_that_holds(channels: int, budget: float) -> None:
    """For b = -log(1 - ρ/c) + log(1 - ρ/C) the real-valued number of groups is exact between divisors, up to c = 2."""
    curves = conv_curves(channels)
    shrunk = budget - math.log1p(-RELU_MEAN_SHARE / channels)
    expected = channels * -math.expm1(-shrunk) / RELU_MEAN_SHARE
    assert ideal_groups(curves, budget, 32) == pytest.approx(min(expected, channels / 2), rel=0.03)


def test_ideal_knows_how_small_a_group_may_be() -> None:
    assert ideal_groups(conv_curves(48, positions=1), 0.38, 32) == 1.5  # 32 elements a group
    assert ideal_groups(conv_curves(64), 0.38, 32) == 32  # two channels a group
    assert ideal_groups(conv_curves(8, positions=1), 0.38, 32) == 1


def test_most_groups_by_hand() -> None:
    curves = conv_curves(64)
    assert curves.amplification == pytest.approx([0.378, 0.168, 0.078, 0.036, 0.015, 0.005, 0], abs=1e-3)
    assert [most_groups_within(curves, e, 32) for e in (0, 0.01, 0.1, 0.3, 0.38)] == [1, 2, 16, 32, 32]
    assert most_groups_within(conv_curves(64, positions=1), 0.38, 32) == 2  # 32 channels are 32 elements
    assert most_groups_within(conv_curves(64, positions=1), 0.38, min_elements=4) == 16


def test_projection_is_bounded_by_itself() -> None:
    """In front of a global pool the loss cancels the amplification; their difference must not decide."""
    amplification, projection = np.array([1.0, 0.1, 0.0]), np.array([1.0, 0.2, 0.0])
    curves = Curves(np.array([1, 2, 4]), amplification, projection, 100, 0.3, flat=False)
    assert curves.gain == pytest.approx([0, -0.1, 0])
    assert [most_groups_within(curves, e, 32) for e in (0.05, 0.15, 0.5, 1)] == [1, 1, 2, 2]


def test_one_bad_divisor_stops_the_search() -> None:
    curves = Curves(np.array([1, 2, 4]), np.array([0.1, 0.5, 0.0]), np.zeros(3), 100, 0.3, flat=False)
    assert most_groups_within(curves, 0.2, 32) == 1


def test_one_channel() -> None:
    curves = Curves(np.array([1]), np.zeros(1), np.zeros(1), 100, 0.3, flat=False)
    assert most_groups_within(curves, 0.1, 32) == ideal_groups(curves, 0.1, 32) == 1


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


# --- block and hybrid ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "positions", "ideal"),
    [
        (1.0, 100, 1),  # equal widths: layer norm
        (0.5, 100, 1),
        (4.0, 100, 64),  # strided at equal width: instance norm
        (1.1, 100, 64 * (1 - 1 / 1.1) * math.pi),
        (1.2, 1, 8),  # fully connected, m = 8
        (100.0, 1, 64 / (298 / 99)),
    ],
)
def test_block(ratio: float, positions: int, ideal: float) -> None:
    assert block_ideal_groups(64, positions, ratio) == pytest.approx(ideal)


def test_layer_budgets() -> None:
    assert layer_budget("isometric", 0.1, 4) == 0.1
    assert layer_budget("hybrid", 0.1, 2) == pytest.approx(0.1 + math.log(2))
    assert layer_budget("hybrid", 0.1, 0.5) == 0


# --- habits ----------------------------------------------------------------------------------------------------------


@given(channel_counts, st.floats(-5, 400))
def test_largest_divisor(channels: int, wanted: float) -> None:
    groups = largest_divisor(channels, wanted)
    assert channels % groups == 0
    assert groups <= max(wanted, 1)
    assert not any(channels % g == 0 for g in range(groups + 1, math.floor(min(wanted, channels)) + 1))


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        # for 64, 48, 7, 1, 512 channels
        ("fixed-32", [32, 24, 7, 1, 32]),
        ("gcd-32", [32, 16, 1, 1, 32]),
        ("channels-16", [4, 3, 1, 1, 32]),
        ("min-32-quarter", [16, 12, 1, 1, 32]),
        ("sqrt", [8, 6, 1, 1, 16]),
        ("layer", [1, 1, 1, 1, 1]),
        ("instance", [64, 48, 7, 1, 512]),
        ("fixed-8", [8, 8, 7, 1, 8]),
        ("channels-2", [32, 24, 1, 1, 256]),
    ],
)
def test_habits_by_hand(name: str, groups: list[int]) -> None:
    check_strategy(name)
    rule = habit(name)
    assert rule is not None
    assert [largest_divisor(channels, rule(channels)) for channels in (64, 48, 7, 1, 512)] == groups


def test_every_strategy_is_a_habit_or_from_theory() -> None:
    for name in STRATEGIES:
        check_strategy(name)
    assert [name for name in STRATEGIES if habit(name) is None] == ["isometric", "hybrid", "block"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("isometrik", "did you mean isometric?"),
        ("fixed-0", "did you mean fixed-32?"),
        ("???", "choose one of isometric"),
    ],
)
def test_unknown_strategy(name: str, hint: str) -> None:
    with pytest.raises(IdealGroupsError, match=r"there is no strategy") as caught:
        check_strategy(name)
    assert hint in str(caught.value)


def test_no_torch_is_needed_for_a_rule() -> None:
    assert not hasattr(strategies, "torch")
