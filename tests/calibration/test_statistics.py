"""Least squares from moments against least squares on the normalized values themselves."""

import numpy as np
import pytest

from idealgroups.calibration.statistics import CallMoments, eps_candidates, least_squares, sums

RNG = np.random.default_rng(0)


def moments_of(z, t):
    """The moments of z and t (N, C, S), every position kept."""
    z_off, t_off = z - z.mean(2, keepdims=True), t - t.mean(2, keepdims=True)
    return CallMoments(
        mean=z.mean(2),
        var=z.var(2),
        count=z.shape[2],
        z=z.mean(2),
        t=t.mean(2),
        zz=(z_off**2).mean(2),
        tt=(t_off**2).mean(2),
        zt=(z_off * t_off).mean(2),
    )


def normalized(z, groups, eps):
    """Group norm without γ and β, written out."""
    parts = z.reshape(len(z), groups, -1)
    mean, var = parts.mean(2, keepdims=True), parts.var(2, keepdims=True)
    return ((parts - mean) / np.sqrt(var + eps)).reshape(z.shape)


def fitted(z, t, groups, eps):
    moments = moments_of(z, t)
    total = sums(moments, *moments.group_statistics(groups), np.array(eps))
    return least_squares(total, np.array(eps), np.ones(z.shape[1]))


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [1, 5])
def test_agrees_with_least_squares_on_the_values(groups, size):
    if size == 1 and groups == 6:
        pytest.skip("one element a group is constant")
    z = RNG.normal(size=(7, 6, size)) * RNG.uniform(0.5, 2, (7, 1, 1)) + RNG.normal(size=(1, 6, 1))
    t = RNG.normal(size=(7, 6, size)) + 0.7 * z
    fit = fitted(z, t, groups, [0.3])
    x = normalized(z, groups, 0.3)
    error = 0.0
    for channel in range(6):
        columns = np.stack([x[:, channel].ravel(), np.ones(7 * size)], 1)
        (gamma, beta), *_ = np.linalg.lstsq(columns, t[:, channel].ravel(), rcond=None)
        assert fit.gamma[channel] == pytest.approx(gamma)
        assert fit.beta[channel] == pytest.approx(beta)
        error += ((columns @ [gamma, beta] - t[:, channel].ravel()) ** 2).sum()
    spread = ((t - t.mean((0, 2), keepdims=True)) ** 2).sum()
    assert fit.residual == pytest.approx(error / spread)


def test_batches_add_up():
    z, t = RNG.normal(size=(2, 8, 4, 9))
    eps = np.array([1e-5, 0.5])
    parts = [moments_of(z[rows], t[rows]) for rows in (slice(0, 3), slice(3, 8))]
    first, second = (sums(part, *part.group_statistics(2), eps) for part in parts)
    whole = fitted(z, t, 2, eps)
    split = least_squares(first + second, eps, np.ones(4))
    assert split.gamma == pytest.approx(whole.gamma)
    assert split.residual == pytest.approx(whole.residual)


def test_a_large_eps_wins_where_the_scale_of_a_sample_matters():
    """t = z, and samples of very different scales: with a large eps, x is close to a multiple of z."""
    z = RNG.normal(size=(16, 4, 50)) * np.geomspace(0.1, 10, 16)[:, None, None]
    small, both = fitted(z, z, 1, [1e-5]), fitted(z, z, 1, [1e-5, 1e4])
    assert both.eps == 1e4
    assert both.residual < 0.05 < small.residual


@pytest.mark.parametrize("level", [0.0, 3.0, -1e4])
def test_a_channel_that_the_reference_keeps_constant_gets_no_gamma(level):
    z, t = RNG.normal(size=(2, 5, 2, 6))
    t[:, 1] = level
    fit = fitted(z, t, 1, [1e-5])
    assert fit.gamma[1] == 0
    assert fit.beta[1] == pytest.approx(level)
    assert fit.gamma[0] != 0


def test_a_channel_without_signal_keeps_gamma_and_gets_the_mean():
    z, t = RNG.normal(size=(2, 5, 2, 6))
    moments = moments_of(z, t)
    mean, var = moments.z, moments.var  # each sample's channel its own mean: x is not constant over positions
    z[:, 0] = 2.0
    moments = moments_of(z, t)
    mean[:, 0], var[:, 0] = 2.0, 1.0
    fit = least_squares(sums(moments, mean, var, np.array([1e-5])), np.array([1e-5]), np.array([7.0, 7.0]))
    assert fit.gamma[0] == 7
    assert fit.beta[0] == pytest.approx(t[:, 0].mean())


def test_nothing_to_explain_leaves_nothing_unexplained():
    assert fitted(RNG.normal(size=(5, 2, 6)), np.full((5, 2, 6), 4.0), 1, [1e-5]).residual == 0


def test_eps_candidates_hold_the_own_one_and_only_larger_ones():
    found = eps_candidates(0.5, np.array([1.0, 3.0]))
    assert found[0] == 0.5
    assert found[1:] == pytest.approx([0.6, 2, 6, 20, 60])
    assert eps_candidates(1e-5, np.zeros(3)).tolist() == [1e-5]
