"""From per-channel moments of one pass to the gain of every possible number of groups. NumPy only.

GroupNorm's backward pass is dz = (d - mean(d) - ẑ·mean(d·ẑ)) / s per group, with d the gradient at the normalized
signal ẑ = (z - mean) / s and s² = var + eps. Its squared norm needs only sums over the group, and those are sums of
per-channel sums: so one forward and one backward pass give the exact answer for *all* divisors of C.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .formulas import Floats, divisors, free_projection_loss

SMALL = 1 << 12
"""Values of N·C up to which layers are computed together; beyond, it saves no time and takes memory."""


@dataclass(frozen=True)
class Moments:
    """What one call of a normalization layer leaves behind; every array has shape (N, C), of L layers (L, N, C).

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

    @cached_property
    def stacked(self) -> Floats:
        """``mean``, ``var`` and, after a backward pass, the sums Σ d, Σ d² and Σ d·z, shape (2 or 5, …, N, C)."""
        return np.stack(self._arrays)

    @property
    def _arrays(self) -> list[Floats]:
        arrays = (self.mean, self.var, self.grad_sum, self.grad_square, self.grad_dot)
        return [array for array in arrays if array is not None]

    @property
    def kind(self) -> tuple[Any, ...]:
        """What two calls must have in common to be computed at once."""
        return self.mean.shape, self.positions, self.eps, len(self._arrays)

    @classmethod
    def together(cls, alike: Sequence[Moments]) -> Moments:
        """Return the calls of L layers, of the same :attr:`kind`, as one record of shape (L, N, C)."""
        arrays = (np.stack(parts) for parts in zip(*(one._arrays for one in alike), strict=True))
        mean, var, *gradients = arrays
        return cls(mean, var, alike[0].positions, alike[0].eps, *gradients)


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


@dataclass(frozen=True)
class _Grouped:
    """A call's sums over groups of several sizes at once; every array has shape (…, N, ΣG), one size after the other.

    ``starts``: where each size begins, shape (D,). ``elements``: m of each group, shape (ΣG,). ``mean``, ``var``: of
    each group. ``gradients``: Σ d, Σ d² and Σ d·z, or None.
    """

    starts: NDArray[np.int64]
    elements: Floats
    eps: float
    mean: Floats
    var: Floats
    gradients: tuple[Floats, Floats, Floats] | None

    @classmethod
    def of(cls, one: Moments, sizes: Sequence[int]) -> _Grouped:
        """Sum over c consecutive channels, as in ``torch.nn.GroupNorm``, for every c of ``sizes``."""
        sums, variances = zip(*(_group_sums(one, c) for c in sizes), strict=True)
        mean, _, *gradients = np.concatenate(sums, axis=-1)
        counts = [one.mean.shape[-1] // c for c in sizes]
        channels = np.repeat(np.array(sizes, dtype=np.float64), counts)
        starts = np.cumsum([0, *counts[:-1]])
        var = np.concatenate(variances, axis=-1)
        return cls(starts, channels * one.positions, one.eps, mean / channels, var, tuple(gradients) or None)

    def total(self, x: Floats) -> Floats:
        """Return the sum of ``x``, shape (…, N, ΣG), over samples and groups, for each size: (…, D)."""
        summed: Floats = np.add.reduceat(np.ones(x.shape[-2]) @ x, self.starts, axis=-1)
        return summed

    def kept(self) -> tuple[Floats, Floats]:
        """Return what the two projections leave of Σ d²/s², and all of it, for each size: (…, D)."""
        if self.gradients is None:
            return np.zeros(len(self.starts)), np.zeros(len(self.starts))
        along_mean, square, dot = self.gradients
        s2 = self.var + self.eps
        along_signal = (dot - self.mean * along_mean) / np.sqrt(s2)
        removed = (np.square(along_mean) + np.square(along_signal) * (2 - self.var / s2)) / self.elements
        return self.total(np.maximum(square - removed, 0) / s2), self.total(square / s2)


def _group_sums(one: Moments, c: int) -> tuple[Floats, Floats]:
    """Return the sums of what is in ``one`` over groups of c channels, (K, …, N, G), and the groups' variance.

    The sums are one matrix product, which is several times as fast as ``sum``. The variance is the mean of the
    variances plus the variance of the means; no cancellation.
    """
    if c == 1:
        return one.stacked, one.var
    ones, samples = np.ones(c), one.mean.shape[:-1]
    sums = (one.stacked.reshape(-1, c) @ ones).reshape(len(one.stacked), *samples, -1)
    deviations = one.mean.reshape(*samples, -1, c) - sums[0][..., None] / c
    return sums, (sums[1] + np.square(deviations) @ ones) / c


def group_variance(moments: Moments, c: int) -> Floats:
    """Return the variance of each group of ``c`` channels, (…, N, G)."""
    return _group_sums(moments, c)[1]


def log_amplification(moments: Sequence[Moments], c: int) -> float:
    """log E[(var_one_group + eps) / (var_group + eps)], the mean over all samples and groups of c channels.

    Every group counts the same, whatever gradient reaches it. ``docs/formulas.md`` says why it hardly matters.
    """
    return float(_log_amplifications(moments, [_Grouped.of(one, [c]) for one in moments])[0])


def _log_amplifications(moments: Sequence[Moments], parts: Sequence[_Grouped]) -> Floats:
    total, count = np.zeros(1), np.zeros(1)
    for one, part in zip(moments, parts, strict=True):
        ratio = (group_variance(one, one.mean.shape[-1]) + one.eps) / (part.var + one.eps)
        total, count = total + part.total(ratio), count + part.total(np.ones_like(ratio))
    amplifications: Floats = np.log(total / count)
    return amplifications


def kept_share(moments: Sequence[Moments], c: int) -> float:
    """Share of the squared gradient Σ d²/s² that survives the two projections, over all ``moments`` together.

    Where no gradient arrived, the share of a structure-free gradient, 1 - 2/m.
    """
    return float(_kept_shares([_Grouped.of(one, [c]) for one in moments])[0])


def _kept_shares(parts: Sequence[_Grouped]) -> Floats:
    kept, total = (sum(sums, np.zeros(1)) for sums in zip(*(part.kept() for part in parts), strict=True))
    elements = np.minimum.reduce([part.elements[part.starts] for part in parts])
    free = np.array([math.exp(-free_projection_loss(size)) for size in elements])
    return np.where(total > 0, kept / np.where(total > 0, total, 1.0), free)


def curves(calls: Sequence[Moments]) -> Curves:
    """Return the curves of one layer from all its calls in a pass (one that is shared or called again has several).

    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(16, 64, 1)) + 0.0
    >>> c = curves([Moments(z.mean(-1), z.var(-1), positions=1, eps=0.0)])
    >>> c.group_sizes.tolist(), bool(c.amplification[-1] == 0)
    ([1, 2, 4, 8, 16, 32, 64], True)
    """
    return curves_of_layers({"": calls})[""]


def curves_of_layers(layers: Mapping[str, Sequence[Moments]]) -> dict[str, Curves]:
    """Return :func:`curves` of every layer. Small layers whose calls are alike are computed at once.

    For them the number of operations counts, and not how much each has to do.
    """
    alike: dict[Any, list[str]] = defaultdict(list)
    for name, calls in layers.items():
        small = sum(call.mean.size for call in calls) <= SMALL
        alike[tuple(call.kind for call in calls), small or name].append(name)
    found: dict[str, Curves] = {}
    for names in alike.values():
        calls = [Moments.together(parts) for parts in zip(*(layers[name] for name in names), strict=True)]
        found.update(zip(names, _curves(calls), strict=True))
    return {name: found[name] for name in layers}


def _curves(calls: Sequence[Moments]) -> list[Curves]:
    """Return the curves of L layers; all arrays of their ``calls`` have shape (L, N, C)."""
    num_layers, _, num_channels = calls[0].mean.shape
    widths = divisors(num_channels)
    # A group of one element has no variance, hence no gain to speak of: its gain and loss are infinite by definition.
    positions = min(call.positions for call in calls)
    alive = np.array([c * positions > 1 for c in widths])
    amplification, shares = np.full((num_layers, len(widths)), np.inf), np.zeros((num_layers, len(widths)))
    with np.errstate(divide="ignore", invalid="ignore"):
        if alive.any():
            parts = [_Grouped.of(call, [c for c, ok in zip(widths, alive, strict=True) if ok]) for call in calls]
            amplification[:, alive], shares[:, alive] = _log_amplifications(calls, parts), _kept_shares(parts)
        projection = np.log(shares[:, -1:]) - np.log(shares)
    # 0/0: a signal without variance (and eps = 0), or not one direction left even with one group. Nothing to compare.
    amplification = np.where(np.isnan(amplification), 0.0, amplification)
    projection = np.where(np.isnan(projection), 0.0, projection)
    amplification[:, -1] = 0.0
    return [
        Curves(
            group_sizes=np.array(widths),
            amplification=amplification[layer],
            projection=projection[layer],
            positions=positions,
            mean_share=float(mean_share),
            flat=all(call.positions == 1 for call in calls),
        )
        for layer, mean_share in enumerate(_mean_shares(calls))
    ]


def _mean_shares(calls: Sequence[Moments]) -> Floats:
    """ρ: the squared channel means over the second moment, unbiased by nothing: S positions are what the layer sees."""
    square: Any = sum(np.sum(call.mean**2, axis=(-2, -1)) for call in calls)
    total: Any = sum(np.sum(call.mean**2 + call.var, axis=(-2, -1)) for call in calls)
    shares: Floats = np.where(total > 0, square / np.where(total > 0, total, 1.0), 0.0)
    return shares
