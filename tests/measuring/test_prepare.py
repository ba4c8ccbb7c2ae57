"""Which parameters are weight layers, and how many values they are of all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.measuring.prepare import count_values, find_weights, scratch_copy
from idealgroups.norms import inventory

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Flat(nn.Module):
    """escnn, e3nn: a weight of one dimension, expanded by a fixed basis."""

    def __init__(self, channels: int, out: int, name: str = "weights") -> None:
        super().__init__()
        self.name, self.shape = name, (out, channels, 3, 3)
        self.register_parameter(name, nn.Parameter(torch.randn(out * channels * 9) * (2 / (9 * channels)) ** 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, getattr(self, self.name).view(self.shape), padding=1)


class Scale(nn.Module):
    """A trained scale of every channel, called weight."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None]


class Spectral(nn.Module):
    """Fourier neural operators: complex weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.rand(channels, channels, 3, 3, dtype=torch.cfloat) / channels)

    def forward(self, x: Tensor) -> Tensor:
        f = torch.fft.rfft2(x)
        y = torch.zeros_like(f)
        y[..., :3, :3] = torch.einsum("bixy,ioxy->boxy", f[..., :3, :3], self.weights)
        return torch.fft.irfft2(y, s=x.shape[-2:])


class Quantized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 8, dtype=torch.int8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("oi,nihw->nohw", self.weight.float(), x)


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(8).to_sparse())

    def forward(self, x: Tensor) -> Tensor:
        return (
            torch.sparse.mm(self.weight, x.movedim(1, 0).flatten(1))
            .unflatten(1, (x.shape[0], -1))
            .movedim(1, 0)[..., None]
        )


def net(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *parts)


@pytest.mark.parametrize("name", ["weight", "weights", "kernel", "w"])
def test_a_flat_weight_is_a_weight_layer(name: str) -> None:
    found = find_weights(net(Flat(8, 4, name)))
    assert [weight.name for weight in found] == ["0.weight", f"3.{name}"]


@pytest.mark.parametrize("part", [Scale(8), nn.PReLU(8), nn.LayerNorm(8), nn.GroupNorm(2, 8), Quantized(), Sparse()])
def test_scales_and_what_has_no_gradient_are_no_weight_layers(part: nn.Module) -> None:
    assert [weight.name for weight in find_weights(net(part))] == ["0.weight"]


def test_a_network_of_flat_weights_is_planned_on_them() -> None:
    model = nn.Sequential(
        Flat(3, 8), nn.BatchNorm2d(8), nn.ReLU(), Flat(8, 8), nn.BatchNorm2d(8), nn.ReLU(), Flat(8, 2)
    )
    assert ig.plan(model, IMAGES).num_groups.keys() == {"1", "4"}
    assert [layer.name for layer in ig.measure(model, IMAGES).layers] == ["0.weights", "3.weights", "6.weights"]


@pytest.mark.parametrize("part", [Spectral(8), Quantized(), Sparse()])
def test_networks_with_tensors_of_other_kinds_are_planned(part: nn.Module) -> None:
    new, plan = ig.convert(net(part, nn.GroupNorm(1, 8), nn.Conv2d(8, 2, 1)), IMAGES)
    assert plan.num_groups.keys() == {"1", "4"}
    assert new(IMAGES).isfinite().all()


def test_complex_weights_are_measured() -> None:
    model = net(Spectral(8), nn.GroupNorm(1, 8), nn.Conv2d(8, 2, 1))
    layers = {layer.name: layer.relative for layer in ig.measure(model, IMAGES).layers}
    assert layers["3.weights"] > 0


def test_weights_are_switched_on_only_where_all_are_zero() -> None:
    model = nn.Sequential(*(nn.Conv2d(2, 2, 1) for _ in range(3)), nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    with torch.no_grad():
        model[0].weight.zero_()
        model[1].weight[0].zero_()
        model[3].weight.zero_()
        model[4].weight[0].zero_()
    assert scratch_copy(model, 0).woken == {"0.weight", "3.weight"}


def test_every_value_is_counted_once_without_norms_and_embeddings() -> None:
    model = nn.ModuleList([nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LayerNorm(4), nn.Embedding(9, 4), Flat(2, 2)])
    model.append(model[0])
    assert count_values(model, inventory(model)) == 3 * 4 + 4 + 36


def test_preparing_reads_no_attribute_of_modules_it_does_not_know() -> None:
    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(8, 8))

        def __getattr__(self, name: str) -> object:
            if name in ("weight", "bias", "eps", "parametrizations", "num_features"):
                raise RuntimeError("merge the adapters first")
            return super().__getattr__(name)

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("oi,nihw->nohw", self.w, x)

    model = net(Adapter())
    assert [weight.name for weight in scratch_copy(model, 0).weights] == ["0.weight", "3.w"]
    assert ig.convert(model, IMAGES)[1].num_groups.keys() == {"1"}
