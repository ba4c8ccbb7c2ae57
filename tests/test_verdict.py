"""A verdict is said for every trend, and it is the right one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idealgroups.verdict import ALLOWED, ISOMETRIC, Trends, calibrated, chosen, compared, measured, planned, to_leave

TREND = st.floats(-20, 20) | st.just(math.nan)


@given(TREND, TREND, st.none() | st.floats(-20, -1), st.booleans())
def test_there_is_always_exactly_one_verdict(before: float, after: float, lowest: float | None, grouped: bool) -> None:
    trends = Trends(before=before, after=after, lowest=lowest, grouped=grouped)
    words = planned(trends)
    starts = [
        "isometric",
        "not isometric",
        "already",
        "as near",
        "above zero",
        "within",
        "too low",
        "no verdict",
        "not measured",
    ]
    assert sum(words.startswith(start) for start in starts) == 1
    if words.startswith("isometric"):
        assert abs(after) <= ISOMETRIC
    if abs(after) > ISOMETRIC and not to_leave(trends):
        assert f"{after:+.2f}".replace("-", "−") in words or lowest is None
    assert "\n" not in words
    assert compared(["a"], [trends])


def test_a_positive_trend_is_as_near_as_groups_get_only_if_one_group_is_no_nearer() -> None:
    near = planned(Trends(before=-2, after=0.92, lowest=-1.0, one=1.4))
    assert near.startswith("as near as groups can get: +0.92, because a plan with more groups")
    assert planned(Trends(before=-2, after=0.92, lowest=-1.0, one=0.4)).startswith("above zero: +0.92, because")


@pytest.mark.parametrize(
    ("after", "lowest", "start"),
    [
        (0.92, -1.0, "above zero: +0.92, because a plan with more groups"),
        (-0.7, -1.0, "within the limit: −0.70 is at least −1.00"),
        (-1.4, -1.5, "within the limit: −1.40; even with one group"),
        (-1.4, ALLOWED, "too low: −1.40"),
        (0.2, -1.0, "isometric"),
        (-1.4, None, "not isometric: the relative gradients of the first layers are 4.1 times those of the last"),
        (1.4, None, "not isometric: the relative gradients of the last layers are 4.1 times those of the first"),
    ],
)
def test_the_reason_fits_the_numbers(after: float, lowest: float | None, start: str) -> None:
    assert planned(Trends(before=-2.0, after=after, lowest=lowest)).startswith(start)


def test_a_plan_with_the_most_groups_everywhere_says_so() -> None:
    said = planned(Trends(before=-2.0, after=-0.7, lowest=-1.0, finest=True))
    assert said.startswith("two channels per group everywhere: −0.70 is at least −1.00")
    assert planned(Trends(before=-2.0, after=-1.4, lowest=-1.0, finest=True)).startswith("too low")


def test_a_network_of_group_norms_that_is_isometric_is_left_alone() -> None:
    assert planned(Trends(before=0.1, after=0.0, lowest=-1.0, grouped=True)).endswith("leave the groups as they are")
    assert planned(Trends(before=0.1, after=0.0, lowest=-1.0, grouped=False)).startswith("isometric")
    assert compared(["a"], [Trends(before=0.1, after=0.0, grouped=True)]).startswith("already isometric")


def test_the_row_to_take() -> None:
    bad, good, undefined = (Trends(before=-2, after=after) for after in (-1.9, 0.3, math.nan))
    one_number = Trends(before=-2, after=-0.1, lowest=-1.0)
    found = Trends(before=-2, after=-0.8, lowest=-1.0, budget=0.1)
    assert chosen([bad, good, undefined]) == 1
    assert chosen([undefined, bad, good, one_number]) == 3
    assert chosen([undefined, bad, good, one_number, found]) == 4  # as many groups as the trend allows
    assert compared(["bad", "good"], [bad, good]).startswith("take good. Its trend (+0.30) is the nearest to zero. ")
    assert compared(["good", "found"], [good, found]).endswith(" As isometric: good.")
    assert "As isometric" not in compared(["bad", "found"], [bad, found])


def test_a_large_trend_is_said_in_few_digits() -> None:
    assert "are 1.1e+09 times" in measured(-20.8)


def test_what_to_expect_of_a_calibrated_network() -> None:
    expected = {None: "no verdict", 0.05: "expect nearly all", 0.2: "expect most", 0.21: "expect to lose much"}
    for residual, start in expected.items():
        for faithful in (True, False):
            words = calibrated(residual, faithful)
            assert words.startswith(start)
            assert ("take the strategy faithful" in words) is (start == "expect to lose much" and not faithful)
