"""The mathematics of grouping and gradient scale. NumPy only; every formula is derived in ``docs/formulas.md``.

Notation: a normalization layer sees z of shape (N, C, S); G groups of c = C / G channels hold m = c·S elements each.
All gains are natural logarithms of factors on the *squared* gradient.

The claims of arXiv 2302.03193 that the number of groups sets the gradient scale, and that there is an ideal number, are
the paper's; the formulas here are ours unless a source is named.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RELU_MEAN_SHARE = 1 / math.pi
"""ρ behind a ReLU with independent positions: (E relu)² / E relu² = (1/2π) / (1/2). Yang et al. 2019 for c = 1."""

RELU_POOL_SHARE = 0.5 + 1 / math.pi
"""c times the share of a position-constant gradient that the projections remove behind GN-ReLU (ours), about 0.82."""

MIN_GROUP_CHANNELS = 2
"""One channel per group erases what is constant over positions (a time embedding, global context): never solved for."""

MIN_GROUP_ELEMENTS = 4
"""A group of m elements keeps m - 2 gradient directions and E[1/var] is finite from m = 4 on: fewer is never chosen."""

MIN_IDEAL_ELEMENTS = 32
"""Every normalization takes 2 of m directions from the signal too. Strategies from theory leave it 15 of 16 or more."""

MIN_FLAT_ELEMENTS = 128
"""The same where a channel has one position only. Its channels differ by nothing but chance, so small groups have no
structure to take out, only signal: 63 of 64 directions stay, or more."""


def divisors(n: int) -> list[int]:
    """All divisors of ``n``, ascending.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return small + [n // d for d in reversed(small) if d * d != n]


def conv_gain(group_size: float, mean_share: float = RELU_MEAN_SHARE, num_channels: float = math.inf) -> float:
    """Grouping gain b(c) of a convolutional layer with many positions, against one group of ``num_channels``.

    ``mean_share`` is ρ, the share of the pre-activation's second moment that is constant over a channel's positions.
    b(c) = -log(1 - ρ/c) + log(1 - ρ/C). It takes the group variance at its expected value, which is exact at c = 1 and
    too low beyond (:func:`gaussian_gain` is not). Instance norm behind a ReLU gives batch norm's π/(π-1):

    >>> round(math.exp(conv_gain(1)), 4) == round(math.pi / (math.pi - 1), 4)
    True
    """
    return -math.log1p(-mean_share / group_size) + math.log1p(-mean_share / num_channels)


def conv_group_size(budget: float, mean_share: float = RELU_MEAN_SHARE) -> float:
    """The real c at which :func:`conv_gain` equals ``budget`` ε: c = ρ / (1 - e^-ε).

    >>> round(conv_group_size(conv_gain(16)), 6)
    16.0
    """
    return mean_share / -math.expm1(-budget) if budget > 0 else math.inf


def next_mean_share(mean_share: float, group_size: float = math.inf) -> float:
    """ρ of the next pre-activation, behind GN of c channels a group and ReLU, for positions alike but for their mean.

    The arc-cosine kernel of Cho & Saul 2009, applied to what GN leaves of ρ. With c = 1 it is 1/π in every layer;
    with larger groups channel means survive and ρ grows with depth.

    >>> next_mean_share(0) == RELU_MEAN_SHARE == next_mean_share(0.9, 1), round(next_mean_share(RELU_MEAN_SHARE), 3)
    (True, 0.494)
    """
    rho = _normalized_mean_share(mean_share, group_size)
    return (math.sqrt(1 - rho**2) + rho * (math.pi / 2 + math.asin(rho))) / math.pi


def _normalized_mean_share(mean_share: float, c: float) -> float:
    """ρ behind the normalization, which takes off the group's own mean: ρ(1 - 1/c) out of 1 - ρ/c."""
    return mean_share * (1 - 1 / c) / (1 - mean_share / c)


def fc_gain(group_elements: float) -> float:
    """Grouping gain b of m Gaussian elements a group, fully connected: log((m-2)/(m-3)), exact for m > 3.

    >>> round(math.exp(fc_gain(8)), 2)
    1.2
    """
    if group_elements <= 3:
        return math.inf
    return math.log((group_elements - 2) / (group_elements - 3))


def fc_group_elements(budget: float) -> float:
    """The real m at which :func:`fc_gain` equals ``budget`` ε: m = (3e^ε - 2) / (e^ε - 1).

    >>> round(fc_group_elements(fc_gain(8)), 6)
    8.0
    """
    return (3 * math.exp(budget) - 2) / math.expm1(budget) if budget > 0 else math.inf


def gaussian_gain(group_size: float, positions: float = math.inf, mean_share: float = RELU_MEAN_SHARE) -> float:
    """Grouping gain b for a Gaussian signal with any c, S and ρ, against one group of infinitely many channels.

    b = log(E[1/var]·(1-2/m)). A group's variance is a sum of two chi-squares, within and between channels, and
    E[1/X] = ∫ E[e^(-tX)] dt. Both closed forms are limits: ``fc_gain`` at S = 1, ``conv_gain`` at c = 1, S = ∞.

    >>> round(math.exp(gaussian_gain(8, positions=1, mean_share=0)), 6), round(math.exp(gaussian_gain(2)), 3)
    (1.2, 1.247)
    """
    s = min(positions, 1e9)
    m = group_size * s
    if m <= 3 or mean_share >= 1:
        return math.inf
    within, between = 1 - mean_share, mean_share * s + 1 - mean_share
    step = 1 / 16  # trapezoid in log t: the integrand decays exponentially on both sides: exact to 1e-12 for m >= 4
    log_t = np.arange(-40, 120, step)
    t = np.exp(log_t) / m
    freedom_within, freedom_between = group_size * (s - 1), group_size - 1
    log_f = freedom_within * np.log1p(2 * within * t) + freedom_between * np.log1p(2 * between * t)
    return math.log(step * float(np.exp(log_t - log_f / 2).sum())) + math.log1p(-2 / m)


def free_projection_loss(group_elements: float) -> float:
    """Loss of a structure-free gradient: two of m directions are projected out, so -log(1 - 2/m)."""
    return -math.log1p(-2 / group_elements) if group_elements > 2 else math.inf


def pooled_projection_loss(group_size: float, num_channels: float = math.inf, mean_share: float = 0.0) -> float:
    """Loss, against one group, of a gradient that is constant over positions behind GN-ReLU (global pool): 0.82/c.

    ``mean_share`` ρ > 0 takes into account that channels with a larger mean are open at more positions, which makes
    the factor 0.82 at c = 1 grow to 1.1 for ρ = 1/π and many channels.

    >>> round(1 - math.exp(-pooled_projection_loss(1)), 2)
    0.82
    """

    def removed(c: float) -> float:
        along_mean = 0.5 + math.asin(_normalized_mean_share(mean_share, c)) / math.pi
        return (along_mean + next_mean_share(mean_share, c)) / c

    return -math.log1p(-removed(group_size)) + math.log1p(-removed(num_channels))
