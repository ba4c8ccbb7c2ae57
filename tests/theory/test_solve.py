"""The search, on made-up networks whose answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idealgroups.theory.curves import Curves
from idealgroups.theory.formulas import conv_gain, divisors
from idealgroups.theory.layer import Groups, Layer
from idealgroups.theory.solve import (
    CLOSE_ENOUGH,
    MAX_CHECKS,
    MAX_HALVINGS,
    SLACK,
    Budgets,
    Numbers,
    Sizes,
    Solution,
    limit,
    predicted_fall,
    solve,
)

CHANNELS = 64


@dataclass(frozen=True)
class Made:
    curves: Mapping[str, Curves]
    trend: float
    slack: float = SLACK


class World:
    """Layers with the closed-form gain; the trend falls with the sum of the gains."""

    def __init__(self, mean_shares: list[float], slope: float, sensitivity: float = 0.5) -> None:
        self.slope, self.sensitivity, self.passes = slope, sensitivity, 0
        widths = divisors(CHANNELS)
        self.curves = {
            f"layer{i}": Curves(
                np.array(widths),
                np.array([conv_gain(c, rho, CHANNELS) for c in widths]),
                np.zeros(len(widths)),
                positions=64,
                mean_share=rho,
                flat=False,
            )
            for i, rho in enumerate(mean_shares)
        }

    def trend(self, groups: Groups) -> float:
        return self.slope - self.sensitivity * 2 * predicted_fall(self.curves, groups)

    def observe(self, groups: Groups, with_curves: bool) -> Made:
        self.passes += 1
        return Made(self.curves if with_curves else {}, self.trend(groups))

    def solve(self) -> tuple[Groups, Solution[Made]]:
        one = self.observe(dict.fromkeys(self.curves, 1), True)
        family = Budgets.of(one.curves)
        solution = solve(self.observe, family, one)
        return family.groups(solution.index), solution


def test_the_limit_is_one_e_fold_below_isometry_or_below_one_group() -> None:
    assert [limit(slope) for slope in (2.0, 0.0, -0.5)] == [-1, -1, -1.5]


def test_a_flat_trend_gives_as_many_groups_as_are_safe() -> None:
    groups, solution = World([0.318] * 5, slope=0.0, sensitivity=0.0).solve()
    assert set(groups.values()) == {CHANNELS // 2}  # two channels a group, at least
    assert solution.lowest_trend == -SLACK


def test_a_steep_trend_gives_one_group() -> None:
    groups, solution = World([0.9] * 5, slope=-0.5, sensitivity=1000).solve()
    assert set(groups.values()) == {1}
    assert solution.measured.trend == -0.5


def test_the_answer_is_the_finest_uniform_width_above_the_limit() -> None:
    # Ten layers alike: T at c is 0.2 - 10·b(c). b(4) = 0.078, b(2) = 0.168: 4 holds at -0.6, 2 falls to -1.5.
    groups, solution = World([0.318] * 10, slope=0.2, sensitivity=1.0).solve()
    assert set(groups.values()) == {CHANNELS // 4}
    assert solution.measured.trend == pytest.approx(0.2 - 10 * conv_gain(4, 0.318, CHANNELS))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.01, 0.95), min_size=1, max_size=40), st.floats(-3, 6), st.floats(0, 3))
def test_never_below_the_limit_and_never_too_many_passes(
    mean_shares: list[float], slope: float, sensitivity: float
) -> None:
    world = World(mean_shares, slope, sensitivity)
    groups, solution = world.solve()
    assert world.passes <= 1 + MAX_CHECKS + MAX_HALVINGS
    assert solution.measured.trend == world.trend(groups) >= limit(slope)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.05, 0.9), min_size=20, max_size=40), st.floats(-1, 3), st.floats(0.2, 2))
def test_as_good_as_trying_every_budget(mean_shares: list[float], slope: float, sensitivity: float) -> None:
    world = World(mean_shares, slope, sensitivity)
    _, solution = world.solve()
    family = Budgets.of(world.curves)
    allowed = [i for i in range(len(family)) if world.trend(family.groups(i)) >= limit(slope)]
    best = world.trend(family.groups(max(allowed)))
    assert solution.measured.trend - best <= CLOSE_ENOUGH + 0.1 or solution.index == max(allowed)


def test_a_trend_that_first_rises_does_not_end_the_search_at_one_group() -> None:
    # Coherent gradients in front of a pool: T is higher for moderate groups than for one (docs/theory.md).
    class Rising(World):
        def trend(self, groups: Groups) -> float:
            gains = 2 * predicted_fall(self.curves, groups)
            return -0.5 + 4 * gains - 3 * gains**2

    groups, solution = Rising(list(np.linspace(0.05, 0.9, 20)), slope=0.0).solve()
    assert solution.measured.trend >= -1.5
    assert max(groups.values()) > 1


def test_a_trend_that_falls_steeply_at_first_does_not_end_the_search_at_one_group() -> None:
    # Seen with log v in a plain network: T is 1.2 with one group, -1.2 or less with 8 to 32, -0.8 with 8 everywhere.
    class Steep(World):
        def trend(self, groups: Groups) -> float:
            return 1.2 - 2.4 * min(predicted_fall(self.curves, groups) / 0.6, 1.0) ** 0.25

    world = Steep(list(np.linspace(0.3, 0.9, 12)), slope=0.0)
    groups, solution = world.solve()
    assert -1 <= solution.measured.trend < 0
    assert max(groups.values()) > 1


# --- families --------------------------------------------------------------------------------------------------------


def layer(name: str, channels: int, positions: int = 64, flat: bool = False) -> Layer:
    return Layer(name=name, num_channels=channels, positions=positions, flat=flat)


def test_one_number_divides_every_width() -> None:
    layers = (layer("a", 16), layer("b", 24), layer("c", 96))
    assert Numbers.of(layers).values == (1, 2, 4, 8)
    assert Numbers.of(layers).groups(3) == {"a": 8, "b": 8, "c": 8}
    assert Sizes.of(layers).values == (None, 8, 4, 2)
    assert Sizes.of(layers).groups(2) == {"a": 4, "b": 6, "c": 24}
    assert Sizes.of(layers).groups(0) == {"a": 1, "b": 1, "c": 1}


def test_a_narrow_fully_connected_layer_does_not_restrict_the_one_number() -> None:
    layers = (layer("a", 64), layer("head", 60, positions=1, flat=True), layer("wide", 512, positions=1, flat=True))
    numbers = Numbers.of(layers)
    assert numbers.values == (1, 2, 4, 8, 16, 32)
    assert numbers.groups(5) == {"a": 32, "head": 1, "wide": 4}  # 128 elements a group


def test_small_maps_restrict_the_one_number() -> None:
    assert Numbers.of((layer("a", 64), layer("b", 64, positions=4))).values == (1, 2, 4, 8)  # 8 channels of 4 positions


@given(st.lists(st.floats(0.01, 0.95), min_size=1, max_size=10))
def test_budgets_are_ordered_and_fall_as_predicted(mean_shares: list[float]) -> None:
    curves = World(mean_shares, 0.0).curves
    family = Budgets.of(curves)
    assert set(family.groups(0).values()) == {1}
    for i in range(1, len(family)):
        assert all(family.groups(i)[name] >= number for name, number in family.groups(i - 1).items())
    assert family.falls(curves) == pytest.approx([predicted_fall(curves, family.groups(i)) for i in range(len(family))])
