"""The closed forms against simulation, and their properties. Autograd: ``test_theory_autograd.py``.

Tolerances are five standard errors of the simulation itself wherever the formula is exact (seeded, so a test that
passes once passes always, and a formula that is wrong by more than the noise fails); where the formula is an
approximation, the tolerance is the error that ``docs/theory.md`` states for it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from idealgroups.theory.formulas import (
    RELU_MEAN_SHARE,
    conv_gain,
    conv_group_size,
    divisors,
    fc_gain,
    fc_group_elements,
    free_projection_loss,
    gaussian_gain,
    next_mean_share,
    pooled_projection_loss,
)
from means import assert_mean

SHARES = [0.0, 0.1, RELU_MEAN_SHARE, 0.6]


def signal(rng: np.random.Generator, groups: int, c: int, positions: int, rho: float) -> np.ndarray:
    """Gaussian groups (groups, c, S) of unit second moment whose channel means hold the share ρ of it."""
    means = rng.normal(size=(groups, c, 1)) * math.sqrt(rho)
    return means + rng.normal(size=(groups, c, positions)) * math.sqrt(1 - rho)


# --- simulation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [6, 8, 16, 64, 512])
def test_fully_connected_gain_is_the_mean_inverse_variance(m: int) -> None:
    z = np.random.default_rng(m).normal(size=(4_000_000 // m, m))
    assert_mean((1 - 2 / m) / z.var(axis=1), math.exp(fc_gain(m)))


@pytest.mark.parametrize("m", [4, 5])
def test_fully_connected_gain_of_the_smallest_groups(m: int) -> None:
    """1/var has no finite variance here, so a plain mean never settles; cut off at a threshold it does.

    m·var is chi-square with m - 1 degrees of freedom, so E[1/var; m·var > t] = m/(m-3)·P(chi²_{m-3} > t).
    """
    z = np.random.default_rng(m).normal(size=(1_000_000, m))
    var, threshold = z.var(axis=1), 0.004
    seen = chi2.sf(threshold, m - 3)
    assert seen > 0.94  # the threshold hides less than six percent of the whole
    assert_mean(np.where(m * var > threshold, (1 - 2 / m) / var, 0), math.exp(fc_gain(m)) * seen)


@pytest.mark.parametrize("rho", SHARES)
@pytest.mark.parametrize(("c", "positions"), [(6, 1), (16, 1), (2, 4), (1, 9), (3, 9), (1, 64), (8, 64)])
def test_gaussian_gain_is_the_mean_inverse_variance(c: int, positions: int, rho: float) -> None:
    m = c * positions
    z = signal(np.random.default_rng(m), 1_000_000 // m, c, positions, rho).reshape(-1, m)
    assert_mean((1 - 2 / m) / z.var(axis=1), math.exp(gaussian_gain(c, positions, rho)))


@pytest.mark.parametrize("rho", SHARES)
@pytest.mark.parametrize("c", [1, 2, 4, 16])
def test_conv_gain_takes_the_group_variance_at_its_mean(c: int, rho: float) -> None:
    """With many positions the noise within a channel averages out, so only the channel means are drawn."""
    var = 1 - rho + math.sqrt(rho) ** 2 * np.random.default_rng(c).normal(size=(200_000, c)).var(axis=1)
    assert_mean(var, math.exp(-conv_gain(c, rho)), bias=1e-8)
    gap = gaussian_gain(c, math.inf, rho) - conv_gain(c, rho)
    assert gap == pytest.approx(0, abs=1e-6) if c == 1 or rho == 0 else gap > 0
    assert_mean(1 / var, math.exp(conv_gain(c, rho) + gap), bias=1e-6)


@pytest.mark.parametrize("rho", [0.1, RELU_MEAN_SHARE])
def test_first_order_of_the_conv_gain(rho: float) -> None:
    """E[1/var] > 1/E[var]: for large c the gain is (ρ + 2ρ²)/c, of which the closed form holds ρ/c."""
    c = 1000
    assert c * conv_gain(c, rho) == pytest.approx(rho, rel=1e-3)
    assert c * gaussian_gain(c, math.inf, rho) == pytest.approx(rho + 2 * rho**2, rel=1e-2)


@pytest.mark.parametrize("m", [3, 4, 8, 64])
def test_free_projection_loss_is_two_directions_of_m(m: int) -> None:
    rng = np.random.default_rng(m)
    z, d = rng.normal(size=(2, 100_000, m))
    z = (z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True)
    kept = d - d.mean(1, keepdims=True) - z * (d * z).mean(1, keepdims=True)
    assert_mean((kept**2).mean(1), math.exp(-free_projection_loss(m)))


def test_relu_constants() -> None:
    x = np.maximum(np.random.default_rng(0).normal(size=4_000_000), 0)
    assert_mean(x, math.sqrt(RELU_MEAN_SHARE / 2))
    assert_mean(x**2, 0.5)
    assert math.exp(conv_gain(1)) == pytest.approx(math.pi / (math.pi - 1))


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("c", [1, 4, 64])
def test_next_mean_share(c: int, rho: float) -> None:
    """ρ of the next layer = E[relu(x)·relu(y)] / E[relu(x)²] with x, y two positions of one channel."""
    rng = np.random.default_rng(c)
    means = rng.normal(size=(400_000 // c, c)) * math.sqrt(rho)
    means -= means.mean(1, keepdims=True)
    spread_within = math.sqrt(1 - rho)
    x, y = (np.maximum(means + spread_within * rng.normal(size=means.shape), 0) for _ in range(2))
    second_moment = (1 - rho / c) / 2  # not of each group, but of their mean: GN's own variance fluctuates about it
    assert_mean((x * y).mean(1), next_mean_share(rho, c) * second_moment)


# --- properties ------------------------------------------------------------------------------------------------------

budgets = st.floats(1e-4, 5)
widths = st.floats(1, 4096)
shares = st.floats(0.01, 0.95)


@given(budgets, shares)
def test_conv_inverse(budget: float, rho: float) -> None:
    c = conv_group_size(budget, rho)
    if c > rho * (1 + 1e-6):
        assert conv_gain(c, rho) == pytest.approx(budget, rel=1e-6)


@given(widths, shares)
def test_conv_inverse_of_the_gain(c: float, rho: float) -> None:
    assert conv_group_size(conv_gain(c, rho), rho) == pytest.approx(c, rel=1e-6)


@given(budgets)
def test_fc_inverse(budget: float) -> None:
    m = fc_group_elements(budget)
    assert m > 3
    assert fc_gain(m) == pytest.approx(budget, rel=1e-6)


@given(widths, st.floats(1.01, 4), shares)
def test_gains_fall_with_wider_groups(c: float, factor: float, rho: float) -> None:
    assert conv_gain(c * factor, rho) < conv_gain(c, rho)
    assert conv_gain(c, rho, c) == pytest.approx(0, abs=1e-12)
    assert fc_gain((c + 3) * factor) < fc_gain(c + 3)
    assert free_projection_loss((c + 2) * factor) < free_projection_loss(c + 2)
    assert pooled_projection_loss(c * factor) < pooled_projection_loss(c)


@given(st.floats(2, 256), st.floats(2, 256), shares)
def test_gaussian_gain_falls_with_wider_groups_and_exceeds_the_closed_form(
    c: float, positions: float, rho: float
) -> None:
    gain = gaussian_gain(c, positions, rho)
    assert gaussian_gain(2 * c, positions, rho) < gain
    assert gaussian_gain(c, math.inf, rho) >= conv_gain(c, rho) - 1e-6


@given(st.floats(4, 4096))
def test_gaussian_gain_at_one_position(m: float) -> None:
    assert gaussian_gain(m, 1, 0) == pytest.approx(fc_gain(m), rel=1e-6, abs=1e-9)


@given(st.floats(4, 4096), st.floats(0, 0.9))
def test_gaussian_gain_at_one_position_knows_no_mean_share(m: float, rho: float) -> None:
    """With one position a channel's mean is its value; what part of it is called constant cannot matter."""
    assert gaussian_gain(m, 1, rho) == pytest.approx(fc_gain(m), rel=1e-6, abs=1e-9)


@given(shares, widths)
def test_mean_share_grows_with_depth_towards_one(rho: float, c: float) -> None:
    assert 0 < next_mean_share(rho, c) < 1
    assert next_mean_share(rho) > rho
    assert next_mean_share(rho, c) <= next_mean_share(rho) + 1e-12


@given(st.floats(0.01, 0.95))
def test_pooled_loss_with_mean_share_is_the_larger(rho: float) -> None:
    assert pooled_projection_loss(4, mean_share=rho) > pooled_projection_loss(4)
    assert pooled_projection_loss(1, mean_share=rho) == pytest.approx(pooled_projection_loss(1))


@pytest.mark.parametrize("m", [0, 1, 2])
def test_groups_that_pass_nothing(m: int) -> None:
    assert fc_gain(m) == free_projection_loss(m) == gaussian_gain(m, 1) == math.inf


def test_no_budget_means_one_group() -> None:
    assert conv_group_size(0) == fc_group_elements(0) == math.inf


@given(st.integers(1, 5000))
def test_divisors(n: int) -> None:
    assert divisors(n) == [d for d in range(1, n + 1) if n % d == 0]


# --- the documentation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "least"), [("theory.md", 30), ("formulas.md", 20), ("choices.md", 2), ("history.md", 6)]
)
def test_every_test_that_a_page_names_exists(page: str, least: int) -> None:
    root = Path(__file__).parents[2]
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (root / "docs" / page).read_text())
    assert len(named) >= least
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (root / file).read_text()]
    assert missing == []
