"""From per-channel moments of one pass to the gain of every possible number of groups. NumPy only.

GroupNorm's backward pass is dz = (d - mean(d) - ẑ·mean(d·ẑ)) / s per group, with d the gradient at the normalized
signal ẑ = (z - mean) / s and s² = var + eps. Its squared norm needs only sums over the group, and those are sums of
per-channel sums: so one forward and one backward pass give the exact answer for *all* divisors of C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .formulas import Floats, divisors, free_projection_loss


@dataclass(frozen=True)
class Moments:
    """What one call of a normalization layer leaves behind; every array has shape (N, C).

    ``mean`` and ``var`` are taken over the S positions of each channel of the layer's input z. With d the gradient of
    the loss at the normalized signal: ``grad_sum`` = Σ d, ``grad_square`` = Σ d², ``grad_dot`` = Σ d·z, all over
    positions; the three are None after a forward pass alone.
    """

    mean: Floats
    var: Floats
    positions: int
    eps: float
    grad_sum: Floats | None = None
    grad_square: Floats | None = None
    grad_dot: Floats | None = None


@dataclass(frozen=True)
class Curves:
    """Gains of every divisor c of C against one group; all arrays (D,), ordered by ascending c.

    ``amplification``: log of the mean of (var_one_group + eps) / (var_group + eps). ``projection``: log of the share
    of the squared gradient that one group keeps over the share that c keeps. Each is bounded by the budget; the
    grouping gain is b = amplification - projection. ``mean_share``: ρ of the layer. ``positions``: of the smallest map
    of all calls; ``flat``: every call had one, as behind a fully connected layer or a global pool.
    """

    group_sizes: NDArray[np.int64]
    amplification: Floats
    projection: Floats
    positions: int
    mean_share: float
    flat: bool

    @property
    def num_channels(self) -> int:
        """C: the last divisor."""
        return int(self.group_sizes[-1])

    @property
    def gain(self) -> Floats:
        """b(c) = amplification - projection, shape (D,); -inf where no gradient passes."""
        lost = np.isposinf(self.projection)
        return np.where(lost, -np.inf, self.amplification - np.where(lost, 0.0, self.projection))

    def at(self, num_groups: int) -> int:
        """Index of ``num_groups`` in the arrays."""
        return int(np.searchsorted(self.group_sizes, self.num_channels // num_groups))


def grouped(x: Floats, c: int) -> Floats:
    """(N, C) → (N, C/c, c): consecutive channels share a group, as in ``torch.nn.GroupNorm``."""
    return x.reshape(len(x), -1, c)


def group_sum(x: Floats, c: int) -> Floats:
    """(N, C) → (N, C/c): sums over each group; a matrix product, which is several times as fast as ``sum``."""
    total: Floats = grouped(x, c) @ np.ones(c)
    return total


def group_variance(moments: Moments, c: int) -> Floats:
    """Variance of each group, (N, G): mean of the variances plus variance of the means; no cancellation."""
    means = grouped(moments.mean, c)
    deviations = means - group_sum(moments.mean, c)[..., None] / c
    return (group_sum(moments.var, c) + deviations**2 @ np.ones(c)) / c


def log_amplification(moments: Sequence[Moments], c: int) -> float:
    """log E[(var_one_group + eps) / (var_group + eps)], the mean over all samples and groups of c channels.

    Every group counts the same, whatever gradient reaches it. ``docs/formulas.md`` says why it hardly matters.
    """
    total, count = 0.0, 0
    for one in moments:
        whole = group_variance(one, one.mean.shape[1]) + one.eps
        ratio = whole / (group_variance(one, c) + one.eps)
        total, count = total + float(np.sum(ratio)), count + ratio.size
    return float(np.log(total / count))


def kept_share(moments: Sequence[Moments], c: int) -> float:
    """Share of the squared gradient Σ d²/s² that survives the two projections, over all ``moments`` together.

    Where no gradient arrived, the share of a structure-free gradient, 1 - 2/m.
    """
    kept = total = 0.0
    for one in moments:
        if one.grad_sum is None or one.grad_square is None or one.grad_dot is None:
            continue
        m = c * one.positions
        var = group_variance(one, c)
        s2 = var + one.eps
        along_mean = group_sum(one.grad_sum, c)
        mean = group_sum(one.mean, c) / c
        along_signal = (group_sum(one.grad_dot, c) - mean * along_mean) / np.sqrt(s2)
        square = group_sum(one.grad_square, c)
        removed = along_mean**2 / m + along_signal**2 / m * (2 - var / s2)
        total += float(np.sum(square / s2))
        kept += float(np.sum(np.maximum(square - removed, 0) / s2))
    if total > 0:
        return kept / total
    return float(np.exp(-free_projection_loss(c * min(one.positions for one in moments))))


def curves(calls: Sequence[Moments]) -> Curves:
    """Curves of one layer from all its calls in a pass (a layer that is shared or called again has several).

    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(16, 64, 1)) + 0.0
    >>> c = curves([Moments(z.mean(-1), z.var(-1), positions=1, eps=0.0)])
    >>> c.group_sizes.tolist(), bool(c.amplification[-1] == 0)
    ([1, 2, 4, 8, 16, 32, 64], True)
    """
    num_channels = calls[0].mean.shape[1]
    widths = divisors(num_channels)
    # A group of one element has no variance, hence no gain to speak of: its gain and loss are infinite by definition.
    positions = min(call.positions for call in calls)
    alive = [c * positions > 1 for c in widths]
    with np.errstate(divide="ignore", invalid="ignore"):
        amplification = np.array(
            [log_amplification(calls, c) if ok else np.inf for c, ok in zip(widths, alive, strict=True)]
        )
        shares = np.array([kept_share(calls, c) if ok else 0.0 for c, ok in zip(widths, alive, strict=True)])
        projection = np.log(shares[-1]) - np.log(shares)
    # 0/0: a signal without variance (and eps = 0), or not one direction left even with one group. Nothing to compare.
    amplification = np.where(np.isnan(amplification), 0.0, amplification)
    projection = np.where(np.isnan(projection), 0.0, projection)
    amplification[-1] = 0.0
    return Curves(
        group_sizes=np.array(widths),
        amplification=amplification,
        projection=projection,
        positions=positions,
        mean_share=_mean_share(calls),
        flat=all(call.positions == 1 for call in calls),
    )


def _mean_share(calls: Sequence[Moments]) -> float:
    """ρ: the squared channel means over the second moment, unbiased by nothing: S positions are what the layer sees."""
    square: Any = sum(float(np.sum(call.mean**2)) for call in calls)
    total: Any = sum(float(np.sum(call.mean**2 + call.var)) for call in calls)
    return float(square / total) if total > 0 else 0.0
