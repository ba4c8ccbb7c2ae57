"""Least squares for one normalization layer, from moments per sample and channel. NumPy only.

A group norm puts out y = γ·x + β with x = (z - μ)/√(v + eps), where μ and v are the mean and the variance of a sample's
group. Within one sample and channel, x is an affine function of z. So the sums of x, x² and x·t that least squares
needs follow from the moments of z and t per sample and channel, for any number of groups and any eps: nothing has to be
normalized on trial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

EPS_STEPS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Values of eps on trial, in units of the mean variance of a group; a layer's own eps is on trial too."""

CONSTANT = 1e-10
"""A channel whose variance is below this share of its second moment carries no signal to scale."""


@dataclass(frozen=True)
class CallMoments:
    """One call of a layer on N samples with C channels: its input z, and the output t of the reference layer.

    ``mean``, ``var``: (N, C), of z over all positions. The rest is over the ``count`` kept positions of each sample:
    ``z``, ``t``: (N, C), means; ``zz``, ``tt``, ``zt``: (N, C), mean products of the deviations from these means.
    """

    mean: Floats
    var: Floats
    count: int
    z: Floats
    t: Floats
    zz: Floats
    tt: Floats
    zt: Floats

    def group_statistics(self, num_groups: int) -> tuple[Floats, Floats]:
        """Mean and variance of each sample's group, repeated for every channel in it: two arrays (N, C).

        >>> import numpy as np
        >>> zero, mean = np.zeros((1, 2)), np.array([[1.0, 3.0]])
        >>> CallMoments(mean, zero, 1, mean, zero, zero, zero, zero).group_statistics(1)
        (array([[2., 2.]]), array([[1., 1.]]))
        """
        samples, channels = self.mean.shape
        grouped = (samples, num_groups, channels // num_groups)
        means, variances = self.mean.reshape(grouped), self.var.reshape(grouped)
        mean = means.mean(-1, keepdims=True)
        variance = variances.mean(-1, keepdims=True) + ((means - mean) ** 2).mean(-1, keepdims=True)
        shape = self.mean.shape
        return np.broadcast_to(mean, grouped).reshape(shape), np.broadcast_to(variance, grouped).reshape(shape)


@dataclass(frozen=True)
class Sums:
    """Weighted sums over samples and positions, for E values of eps: what least squares needs, and nothing else.

    ``n``: the number of summed elements per channel. ``x``, ``xx``, ``xt``: (E, C). ``t``, ``tt``: (C,).
    """

    n: int
    x: Floats
    xx: Floats
    xt: Floats
    t: Floats
    tt: Floats

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.n + other.n,
            self.x + other.x,
            self.xx + other.xx,
            self.xt + other.xt,
            self.t + other.t,
            self.tt + other.tt,
        )


@dataclass(frozen=True)
class Fit:
    """The best γ and β, (C,) each, for one eps, and the residual that they leave.

    ``residual``: Σ(γx + β - t)² / Σ(t - t̄)², both sums over samples, positions and channels, t̄ a mean per channel.
    """

    eps: float
    gamma: Floats
    beta: Floats
    residual: float


def sums(moments: CallMoments, mean: Floats, variance: Floats, eps: Floats) -> Sums:
    """The sums of one call for a layer that normalizes with ``mean`` and ``variance``, both (N, C) or (C,).

    Args:
        moments: of the call.
        mean: μ.
        variance: v.
        eps: (E,), each a candidate.
    """
    m = moments.count
    d = moments.z - mean
    square, product = moments.zz + d**2, moments.zt + d * moments.t
    x, xx, xt = (np.empty((len(eps), moments.z.shape[1])) for _ in range(3))
    for row, one in enumerate(eps):  # one at a time: all at once would be E arrays (N, C)
        scale = 1.0 / np.sqrt(variance + one)
        x[row] = m * (scale * d).sum(0)
        xx[row] = m * (scale**2 * square).sum(0)
        xt[row] = m * (scale * product).sum(0)
    return Sums(
        n=m * len(moments.z),
        x=x,
        xx=xx,
        xt=xt,
        t=m * moments.t.sum(0),
        tt=m * (moments.tt + moments.t**2).sum(0),
    )


def least_squares(total: Sums, eps: Floats, gamma: Floats) -> Fit:
    """The eps, γ and β that come closest to t. ``gamma``: (C,), kept where a channel carries no signal to scale.

    A channel in which t is constant (a dead one, or γ = 0 in the reference) gets γ = 0 and β = t.
    """
    mean_x, mean_t = total.x / total.n, total.t / total.n
    var_x = np.maximum(total.xx / total.n - mean_x**2, 0.0)
    var_t = np.maximum(total.tt / total.n - mean_t**2, 0.0)
    var_t[var_t <= CONSTANT * total.tt / total.n] = 0.0
    covariance = np.where(var_t > 0, total.xt / total.n - mean_x * mean_t, 0.0)
    varies = var_x > CONSTANT * total.xx / total.n
    slope = np.where(varies, covariance / np.where(varies, var_x, 1.0), np.where(var_t > 0, gamma, 0.0))
    error = np.maximum(var_t - np.where(varies, slope * covariance, 0.0), 0.0)
    best = int(np.argmin(error.sum(1)))
    spread = float(var_t.sum())
    return Fit(
        eps=float(eps[best]),
        gamma=slope[best],
        beta=mean_t - slope[best] * mean_x[best],
        residual=float(error[best].sum()) / spread if spread > 0 else 0.0,
    )


def eps_candidates(own: float, variance: Floats) -> Floats:
    """A layer's own eps and those of :data:`EPS_STEPS` times the mean of ``variance`` that are larger, ascending."""
    typical = float(variance.mean())
    return np.array(sorted({own, *(step * typical for step in EPS_STEPS if step * typical > own)}))
