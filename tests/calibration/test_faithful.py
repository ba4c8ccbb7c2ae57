from hypothesis import given
from hypothesis import strategies as st

from idealgroups.calibration.faithful import most_faithful_groups


def test_takes_the_most_groups_even_where_fewer_are_worse():
    assert most_faithful_groups({1: 0.1, 2: 0.2, 4: 0.101}, 0.004) == 4


def test_the_budget_is_absolute():
    assert most_faithful_groups({1: 0.5, 2: 0.51}, 0.004) == 1


@given(st.dictionaries(st.integers(1, 64), st.floats(0, 1), min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_budget_never_takes_fewer_groups(residuals, one, more):
    assert most_faithful_groups(residuals, one) <= most_faithful_groups(residuals, one + more)
