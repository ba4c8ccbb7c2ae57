"""The closed form: the exact gain inverted, shapes that lead to it, and real blocks that become isometric by it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from idealgroups.theory.block import block_group_size, block_groups, block_note
from idealgroups.theory.formulas import fc_group_elements, gaussian_gain, next_mean_share
from idealgroups.theory.layer import Layer, WeightShape


def weight(ratio: float) -> WeightShape:
    return WeightShape(in_channels=round(ratio * 1000), out_channels=1000, in_positions=1, out_positions=1)


def layer(ratio: float, channels: int = 4096, positions: int = 10**6, flat: bool = False) -> Layer:
    return Layer(name="x", num_channels=channels, positions=positions, flat=flat, weight=weight(ratio))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.001, 0.4), st.floats(0.1, 0.8), st.sampled_from([16, 64, 784, 10**6]))
def test_it_inverts_the_exact_gain(gain: float, mean_share: float, positions: int) -> None:
    shape = WeightShape(in_channels=10**6, out_channels=round(10**6 / math.exp(gain)), in_positions=1, out_positions=1)
    found = Layer(name="x", num_channels=4096, positions=positions, weight=shape)
    size = block_group_size(found, mean_share)
    exact = gaussian_gain(size, positions, mean_share) - gaussian_gain(4096, positions, mean_share)
    if size > 2.001 and size * positions > 32.001:
        assert exact == pytest.approx(math.log(found.ratio), rel=1e-4)
    else:
        assert exact <= math.log(found.ratio) + 1e-4


@pytest.mark.parametrize(
    ("ratio", "size"),
    [
        (1.0, 4096),  # equal widths: layer norm
        (0.5, 4096),
        (4.0, 2),  # strided at equal width: the smallest groups
        (1.1, 5.1),  # conv_gain would say 3.5
    ],
)
def test_group_sizes_by_hand(ratio: float, size: float) -> None:
    assert block_group_size(layer(ratio)) == pytest.approx(size, rel=0.02)


def test_fully_connected_layers_follow_their_own_closed_form() -> None:
    ratio = 1.005  # m = 202
    found = block_group_size(layer(ratio, channels=10**6, positions=1, flat=True))
    assert found == pytest.approx(fc_group_elements(math.log(ratio)), rel=0.01)


def test_the_mean_share_follows_the_layers() -> None:
    """Behind a layer with large groups ρ has grown, so the same ratio leads to larger groups."""
    shapes = [
        Layer(name=str(i), num_channels=512, positions=10**6, weight=weight(ratio)) for i, ratio in enumerate((1, 1.1))
    ]
    groups, ideals, _ = block_groups(shapes)
    assert groups["0"] == 1
    rho = next_mean_share(1 / math.pi, 512)
    assert ideals["1"] == pytest.approx(512 / block_group_size(shapes[1], rho))
    assert ideals["1"] < 512 / block_group_size(shapes[1])


@pytest.mark.parametrize(
    ("shape", "note"),
    [
        ((128, 64, 100, 100), "r = 2: 128 channels in, 64 out"),
        ((64, 64, 400, 100), "r = 4: 64 channels in, 64 out, stride 2"),
        ((64, 128, 400, 100), "r = 2: 64 channels in, 128 out, stride 2"),
        ((64, 32, 100, 400), "r = 0.5: 64 channels in, 32 out, upsampling 2"),
        ((64, 64, 200, 100), "r = 2: 64 channels in, 64 out, stride √2"),
    ],
)
def test_notes_say_what_led_to_the_number(shape: tuple[int, int, int, int], note: str) -> None:
    into, out, before, behind = shape
    made = WeightShape(in_channels=into, out_channels=out, in_positions=before, out_positions=behind)
    assert block_note(made) == note


@pytest.mark.parametrize(
    ("n_in", "n_out", "stride", "convolutions"), [(48, 48, 2, 48), (96, 48, 1, 8), (440, 300, 1, 20)]
)
def test_groups_of_a_convolution_cancel_in_the_ratio(n_in: int, n_out: int, stride: int, convolutions: int) -> None:
    """With one group of channels in GN the mean square of the gradient changes by 1/r, depthwise or grouped or not."""
    ratio = n_in * stride**2 / n_out
    torch.manual_seed(0)
    factors = []
    for _ in range(10):
        h = torch.randn(2, n_in, 32, 32, dtype=torch.float64).relu().requires_grad_()
        fan_in = n_in // convolutions * 9
        w = torch.randn(n_out, n_in // convolutions, 3, 3, dtype=torch.float64) * math.sqrt(2 / fan_in)
        h.grad = None
        z = F.conv2d(F.pad(h, (1, 1, 1, 1), mode="circular"), w, stride=stride, groups=convolutions)
        # The textbook statement is about the mean over channels: rescale z to unit variance without any projection.
        y = (z / z.detach().square().mean().sqrt()).relu()
        d = torch.randn_like(y)
        y.backward(d)
        assert h.grad is not None
        factors.append(float(h.grad.square().mean() / d.square().mean()))
    assert sum(factors) / len(factors) == pytest.approx(1 / ratio, rel=0.1)


def test_pre_activation_blocks_have_the_ratio_of_the_weight_behind() -> None:
    """GN-ReLU-conv on a stream z: the product of signal and gradient, E[z²]·E[g²], changes by n_out/(n_in·s²)."""
    torch.manual_seed(0)
    n_in, n_out, stride, factors = 96, 64, 2, []
    for _ in range(10):
        z = (torch.randn(2, n_in, 32, 32, dtype=torch.float64) * 3).requires_grad_()
        w = torch.randn(n_out, n_in, 3, 3, dtype=torch.float64) * 0.1
        h = F.group_norm(z, 1, eps=0.0).relu()
        y = F.conv2d(F.pad(h, (1, 1, 1, 1), mode="circular"), w, stride=stride)
        d = torch.randn_like(y)
        y.backward(d)
        assert z.grad is not None
        factors.append(
            float(
                z.grad.square().mean()
                * z.detach().square().mean()
                / (d.square() * 1.0).mean()
                / y.detach().square().mean()
            )
        )
    assert sum(factors) / len(factors) == pytest.approx(n_out / (n_in * stride**2), rel=0.1)
