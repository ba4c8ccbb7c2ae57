"""Curves from per-channel moments are exact: for every divisor they equal regrouping the same tensor in torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from idealgroups.theory.curves import SMALL, Moments, curves, curves_of_layers, kept_share, log_amplification
from idealgroups.theory.formulas import RELU_MEAN_SHARE, divisors, free_projection_loss, gaussian_gain

SHAPES = [
    (5, 12),  # fully connected: one position
    (4, 12, 7),
    (3, 12, 5, 4),
    (2, 6, 3, 2, 2),
    (4, 16, 1, 1),
    (4, 7, 6),  # a prime number of channels
    (3, 1, 9),  # one channel
    (1, 4, 3, 3),  # one sample
    (6, 4),  # only one group is safe
]


@dataclass(frozen=True)
class Call:
    """One call of a GN layer: its input z, the gradient δ that arrives at its output, γ and eps."""

    z: Tensor
    delta: Tensor
    gamma: Tensor
    eps: float

    def moments(self) -> Moments:
        """What the observer keeps, computed the plain way."""
        z = self.z.reshape(*self.z.shape[:2], -1).numpy()
        d = (self.delta.reshape(z.shape) * self.gamma.reshape(1, -1, 1)).numpy()
        return Moments(
            mean=z.mean(-1),
            var=z.var(-1),
            positions=z.shape[-1],
            eps=self.eps,
            grad_sum=d.sum(-1),
            grad_square=(d**2).sum(-1),
            grad_dot=(d * z).sum(-1),
        )

    def inverse_variance(self, groups: int) -> Tensor:
        """1 / s² as torch's own kernel has it, (N, G)."""
        n, c = self.z.shape[:2]
        z = self.z.reshape(n, c, -1)
        _, _, rstd = torch.native_group_norm(z, None, None, n, c, z.shape[-1], groups, self.eps)
        return rstd.reshape(n, groups) ** 2

    def squared_gradient(self, groups: int) -> float:
        """Σ ‖∂L/∂z‖² by autograd through F.group_norm with γ (and a β, which cannot matter)."""
        z = self.z.clone().requires_grad_()
        F.group_norm(z, groups, self.gamma, torch.ones_like(self.gamma), self.eps).backward(self.delta)
        assert z.grad is not None
        return float(z.grad.square().sum())

    def without_projection(self, groups: int) -> float:
        """Σ d²/s²."""
        d = self.delta * self.gamma.reshape(1, -1, *[1] * (self.z.ndim - 2))
        square = d.reshape(len(d), groups, -1).square().sum(-1)
        return float((square * self.inverse_variance(groups)).sum())


def make_call(shape: tuple[int, ...], eps: float, seed: int) -> Call:
    """Channels with means and scales of their own; a gradient with a constant part and a part along the signal."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    one = (1,) * (len(shape) - 2)
    z = normal(*shape) * normal(1, shape[1], *one).exp() + 2 * normal(*shape[:2], *one) + 3
    delta = normal(*shape) + normal(*shape[:2], *one) + 0.3 * z
    return Call(z, delta, gamma=normal(shape[1]), eps=eps)


def assert_equals_regrouping(calls: Sequence[Call]) -> None:
    computed = curves([call.moments() for call in calls])
    channels = calls[0].z.shape[1]
    positions = min(call.moments().positions for call in calls)
    assert computed.group_sizes.tolist() == divisors(channels)
    assert (computed.num_channels, computed.positions) == (channels, positions)

    def kept(groups: int) -> float:
        return sum(call.squared_gradient(groups) for call in calls) / sum(
            call.without_projection(groups) for call in calls
        )

    for index, c in enumerate(divisors(channels)):
        groups = channels // c
        assert computed.at(groups) == index
        if c * positions == 1:
            assert c == channels or computed.amplification[index] == computed.projection[index] == math.inf
            continue
        ratios = [(call.inverse_variance(groups) / call.inverse_variance(1)).reshape(-1) for call in calls]
        assert computed.amplification[index] == pytest.approx(float(torch.cat(ratios).mean().log()), rel=1e-6, abs=1e-6)
        share = kept_share([call.moments() for call in calls], c)
        assert share == pytest.approx(kept(groups), rel=1e-6, abs=1e-9)
        if share > 1e-6 and kept(1) > 1e-6:  # groups of two elements keep nothing but rounding errors
            assert computed.projection[index] == pytest.approx(math.log(kept(1) / kept(groups)), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("eps", [1e-5, 0.5, 20.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_curves_equal_regrouping(shape: tuple[int, ...], eps: float) -> None:
    assert_equals_regrouping([make_call(shape, eps, seed=len(shape))])


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_curves_of_several_calls(eps: float) -> None:
    """A layer that is shared, or called at several sizes."""
    assert_equals_regrouping(
        [make_call((3, 12, 4, 4), eps, 1), make_call((5, 12, 2, 3), eps, 2), make_call((1, 12, 9), eps, 3)]
    )
    assert_equals_regrouping([make_call((3, 6), eps, 1), make_call((5, 6, 2, 3), eps, 2)])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kept_share_is_the_squared_gradient_of_autograd(shape: tuple[int, ...]) -> None:
    """kept_share · Σ d²/s² is ‖dz‖² itself, for every divisor, also where eps is most of s²."""
    for eps in (1e-5, 2.0):
        call = make_call(shape, eps, seed=7)
        for c in divisors(shape[1]):
            groups = shape[1] // c
            expected = call.squared_gradient(groups)
            computed = kept_share([call.moments()], c) * call.without_projection(groups)
            assert computed == pytest.approx(expected, rel=1e-9, abs=1e-9 * call.without_projection(groups))


def test_layers_together_have_the_curves_of_each_alone() -> None:
    shapes = {"a": (4, 6, 3), "b": (4, 6, 3), "wider": (4, 8, 3), "fewer positions": (4, 6, 1), "large": (4, SMALL, 1)}
    layers = {name: [make_call(shape, 1e-5, seed).moments()] for seed, (name, shape) in enumerate(shapes.items())}
    layers |= {name: [make_call((4, 6, 3), 1e-5, seed).moments() for seed in (7, 8)] for name in ("twice", "again")}
    layers["without gradient"] = [Moments(layers["a"][0].mean, layers["a"][0].var, 3, 1e-5)]
    together = curves_of_layers(layers)
    assert list(together) == list(layers)
    for name, calls in layers.items():
        alone = curves(calls)
        assert together[name].group_sizes.tolist() == alone.group_sizes.tolist()
        np.testing.assert_allclose(together[name].amplification, alone.amplification, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(together[name].projection, alone.projection, rtol=1e-12, atol=1e-14)
        assert together[name].mean_share == pytest.approx(alone.mean_share, rel=1e-12)
        assert (together[name].positions, together[name].flat) == (alone.positions, alone.flat)


def test_a_real_network() -> None:
    """conv → GN → ReLU → pool → linear: moments of the real input and the real gradient, for every divisor."""
    torch.manual_seed(0)
    images = torch.randn(4, 3, 10, 10, dtype=torch.float64)
    z = F.conv2d(images, torch.randn(12, 3, 3, 3, dtype=torch.float64))
    y = F.group_norm(z, 3).requires_grad_()
    head = torch.randn(12, dtype=torch.float64)
    (y.relu().mean((2, 3)) @ head).square().sum().backward()
    assert y.grad is not None
    assert_equals_regrouping([Call(z, y.grad, torch.ones(12, dtype=torch.float64), 1e-5)])


# --- hand-computed answers -------------------------------------------------------------------------------------------


def test_amplification_by_hand() -> None:
    """Two channels of variance 1 with means -1 and 1: one group has variance 2, each channel alone 1."""
    moments = Moments(mean=np.array([[-1.0, 1.0]]), var=np.ones((1, 2)), positions=10, eps=0.0)
    assert curves([moments]).amplification == pytest.approx([math.log(2), 0])
    with_eps = replace(moments, eps=1.0)
    assert curves([with_eps]).amplification == pytest.approx([math.log(3 / 2), 0])
    assert curves([moments]).mean_share == pytest.approx(0.5)


def test_projection_by_hand() -> None:
    """z = (-1, 1, -1, 1), d = (1, 1, 1, -1): mean 1/2 removes 4·1/4 = 1 of 4, signal (Σ d·z)²/4 = 1 removes another."""
    moments = Moments(
        mean=np.zeros((1, 2)),
        var=np.ones((1, 2)),
        positions=2,
        eps=0.0,
        grad_sum=np.array([[2.0, 0.0]]),
        grad_square=np.array([[2.0, 2.0]]),
        grad_dot=np.array([[0.0, -2.0]]),
    )
    assert kept_share([moments], 2) == pytest.approx(0.5)
    assert kept_share([moments], 1) == pytest.approx(0)  # two elements a group: (1, 1) is all mean, (1, -1) all signal
    assert curves([moments]).projection.tolist() == [math.inf, 0]
    assert curves([moments]).gain.tolist() == [-math.inf, 0]


def test_a_group_of_one_element_passes_no_gradient() -> None:
    z = np.random.default_rng(0).normal(size=(2, 4))
    result = curves([Moments(z, 0 * z, 1, 1e-5, z, z**2, z**2)])
    assert result.amplification[0] == result.projection[0] == math.inf
    assert result.gain[0] == -math.inf


def test_constant_gradient_is_lost_in_channels_of_their_own() -> None:
    """What is constant over positions is exactly the mean that instance norm takes out; one group keeps part of it."""
    generator = np.random.default_rng(0)
    z = generator.normal(size=(8, 4, 50))
    d = np.broadcast_to(generator.normal(size=(8, 4, 1)), z.shape)
    moments = Moments(z.mean(-1), z.var(-1), 50, 0.0, d.sum(-1), (d**2).sum(-1), (d * z).sum(-1))
    result = curves([moments])
    assert result.projection[0] > 10
    assert result.projection[-1] == 0
    assert result.amplification[0] < 0.1


# --- where there is nothing to see -----------------------------------------------------------------------------------


def test_forward_pass_alone_assumes_a_gradient_without_structure() -> None:
    z = np.random.default_rng(0).normal(size=(3, 8, 2))
    result = curves([Moments(z.mean(-1), z.var(-1), 2, 1e-5)])
    expected = [free_projection_loss(2 * c) - free_projection_loss(16) for c in (1, 2, 4, 8)]
    assert result.projection == pytest.approx(expected)


@pytest.mark.parametrize("positions", [1, 2, 3])
@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_dead_layers_have_a_curve(positions: int, eps: float) -> None:
    """Constant signals, no gradient, a single element: no warning, no NaN, and no gain at one group."""
    zero = np.zeros((2, 6))
    for channels in (1, 6):
        z = zero[:, :channels]
        result = curves([Moments(z, z, positions, eps, z, z, z)])
        assert not np.isnan(result.amplification).any()
        assert not np.isnan(result.projection).any()
        assert result.amplification[-1] == result.projection[-1] == result.gain[-1] == 0
        assert result.mean_share == 0


# --- properties ------------------------------------------------------------------------------------------------------

channel_counts = st.sampled_from([1, 2, 4, 6, 7, 12])


@st.composite
def signals(draw: st.DrawFn) -> Moments:
    shape = (draw(st.integers(1, 3)), draw(channel_counts), draw(st.integers(2, 5)))
    values = st.floats(-3, 3, width=32)
    z, d = (draw(arrays(np.float64, shape, elements=values)) for _ in range(2))
    return Moments(
        z.mean(-1), z.var(-1), shape[-1], draw(st.floats(1e-3, 1)), d.sum(-1), (d**2).sum(-1), (d * z).sum(-1)
    )


@given(signals())
def test_a_refinement_never_amplifies_less(moments: Moments) -> None:
    """1/x is convex and the mean variance of the parts is at most that of the whole, sample by sample."""
    widths = divisors(moments.mean.shape[1])
    for fine in widths:
        for coarse in widths:
            if coarse % fine == 0:
                assert log_amplification([moments], fine) >= log_amplification([moments], coarse) - 1e-9


@given(signals())
def test_projection_only_removes(moments: Moments) -> None:
    for c in divisors(moments.mean.shape[1]):
        assert -1e-9 <= kept_share([moments], c) <= 1 + 1e-9


@given(signals(), st.floats(0.1, 10), st.floats(0.1, 10), st.floats(-5, 5))
def test_units_do_not_matter(moments: Moments, scale: float, gradient_scale: float, shift: float) -> None:
    """z → a·z + b (with eps in the same unit) and δ → k·δ leave the curves alone."""
    assert moments.grad_sum is not None
    assert moments.grad_square is not None
    assert moments.grad_dot is not None
    other = Moments(
        mean=moments.mean * scale + shift,
        var=moments.var * scale**2,
        positions=moments.positions,
        eps=moments.eps * scale**2,
        grad_sum=moments.grad_sum * gradient_scale,
        grad_square=moments.grad_square * gradient_scale**2,
        grad_dot=(moments.grad_dot * scale + shift * moments.grad_sum) * gradient_scale,
    )
    for c in divisors(moments.mean.shape[1]):
        assert log_amplification([other], c) == pytest.approx(log_amplification([moments], c), abs=1e-6)
        assert kept_share([other], c) == pytest.approx(kept_share([moments], c), abs=1e-6)


@given(signals())
def test_a_batch_in_two_calls_is_a_batch_in_one(moments: Moments) -> None:
    def part(rows: slice) -> Moments:
        names = ("mean", "var", "grad_sum", "grad_square", "grad_dot")
        return replace(moments, **{name: getattr(moments, name)[rows] for name in names})

    parts = [part(slice(0, 1)), *([part(slice(1, None))] if len(moments.mean) > 1 else [])]
    whole, split = curves([moments]), curves(parts)
    assert split.amplification == pytest.approx(whole.amplification, abs=1e-9)
    assert np.exp(-split.projection) == pytest.approx(np.exp(-whole.projection), abs=1e-6)
    assert split.mean_share == pytest.approx(whole.mean_share)


# --- against the theory ----------------------------------------------------------------------------------------------


def gaussian_moments(samples: int, channels: int, positions: int, rho: float, seed: int = 0) -> Moments:
    rng = np.random.default_rng(seed)
    z = math.sqrt(rho) * rng.normal(size=(samples, channels, 1))
    z = z + math.sqrt(1 - rho) * rng.normal(size=(samples, channels, positions))
    d = rng.normal(size=z.shape)
    return Moments(z.mean(-1), z.var(-1), positions, 0.0, d.sum(-1), (d**2).sum(-1), (d * z).sum(-1))


@pytest.mark.parametrize(
    ("positions", "rho"), [(1, 0.0), (9, 0.0), (9, RELU_MEAN_SHARE), (49, RELU_MEAN_SHARE), (49, 0.6)]
)
def test_curves_of_a_gaussian_signal_follow_the_theory(positions: int, rho: float) -> None:
    channels = 256
    result = curves([gaussian_moments(300, channels, positions, rho)])
    for c, gain in zip(result.group_sizes, result.gain, strict=True):
        if c * positions >= 8:
            expected = gaussian_gain(c, positions, rho) - gaussian_gain(channels, positions, rho)
            assert gain == pytest.approx(expected, abs=0.01)  # 1 % of the squared gradient: 77,000 channels of noise


@pytest.mark.parametrize("m", [8, 16, 32])
def test_amplification_of_few_gaussian_channels(m: int) -> None:
    """The one group that a group is compared with contains it: E[var_one/var_group] = 1/G + (1 - 1/G)·m/(m-3)."""
    groups = 64 // m
    result = curves([gaussian_moments(20_000, 64, 1, 0.0)])
    expected = math.log(1 / groups + (1 - 1 / groups) * m / (m - 3))
    assert result.amplification[result.at(groups)] == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("positions", [1, 4, 49])
def test_few_positions_inflate_the_measured_mean_share(positions: int) -> None:
    """The mean of S positions has a random part of its own: ρ + (1 - ρ)/S is measured."""
    rho = 0.3
    measured = curves([gaussian_moments(2000, 16, positions, rho)]).mean_share
    assert measured == pytest.approx(rho + (1 - rho) / positions, rel=0.03)
