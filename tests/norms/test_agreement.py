"""A layer that does something else on the shapes of the model than on those it was tried on is left and named."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.norms import Norm, disagreement

IMAGES = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class WindowNorm(nn.Module):
    """FedML: group norm on small images, windows on large ones."""

    def __init__(self, channels: int, groups: int = 2, window: int = 8) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.groups, self.window = groups, window

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > self.window:
            x = x - F.avg_pool2d(x, 3, 1, 1)
        return F.group_norm(x, self.groups, self.weight, self.bias)


class SwapNorm(nn.BatchNorm1d):
    """For (N, T, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mT).mT


class ClippedNorm(nn.BatchNorm2d):
    """Clips where it is wide enough."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-1, 1) if x.shape[-1] > 8 else super().forward(x)


def net(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1))


@pytest.mark.parametrize("norm", [WindowNorm(8), ClippedNorm(8)])
def test_what_differs_on_the_models_own_shapes_is_left_and_named(norm: nn.Module) -> None:
    with pytest.warns(UserWarning, match="layer 1 stays as it is because it"):
        new, plan = ig.convert(net(norm), IMAGES)
    assert plan.num_groups.keys() == {"4"}
    assert [item.name for item in plan.not_understood] == ["1"]
    assert "(4, 8, 10, 10)" in plan.not_understood[0].why
    assert type(new[1]) is type(norm)


class SwitchedNorm(nn.GroupNorm):
    """Normalizes where a buffer says so."""

    def __init__(self, groups: int, channels: int, on: bool = True) -> None:
        super().__init__(groups, channels)
        self.register_buffer("on", torch.tensor(on))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.on else x.clone()


class BoundedNorm(nn.BatchNorm2d):
    """Clips what is larger than any of the values that it is tried on."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-40, 40)


class SmallNorm(nn.BatchNorm2d):
    """Leaves large inputs as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.abs().max() < 100 else x.clone()


def row(*norms: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), *(part for norm in norms for part in (norm, nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)))
    )


def test_each_of_several_layers_that_are_alike_is_compared() -> None:
    """What one does on a shape does not tell what another one does, whose values and inputs are others."""
    clipped, bounded, small = (row(*(kind(8) for _ in range(3))) for kind in (ClippedNorm, BoundedNorm, SmallNorm))
    switched = row(*(SwitchedNorm(2, 8, on) for on in (True, False, True)))
    nn.init.constant_(bounded[4].weight, 60)
    nn.init.normal_(small[3].weight, std=1000)
    images = IMAGES[..., :8, :8]
    for model, odd in ((clipped, []), (bounded, ["4"]), (small, ["4", "7"]), (switched, ["4"])):
        plan = ig.plan(model, images)
        assert [item.name for item in plan.not_understood] == odd
        assert len(plan.num_groups) == 3 - len(odd)
    plan = ig.plan(row(ClippedNorm(8), ClippedNorm(8), nn.BatchNorm2d(8)), IMAGES)
    assert [item.name for item in plan.not_understood] == ["1", "4"]


def test_a_first_channel_of_zeros_does_not_make_rounding_a_difference() -> None:
    layer = BoundedNorm(4)
    norm = Norm(kind="", num_channels=4, eps=1e-5, num_groups=None, weight="weight", bias="bias", over_batch=True)
    x = torch.randn(4, 4, 5, 5)
    nn.init.zeros_(layer.weight[:1])
    with torch.no_grad():
        y = layer(x)
    assert disagreement(layer, norm, x, y + 0.01) is None
    assert disagreement(layer, norm, x, y + 0.5)
    assert disagreement(layer, norm, x, y.index_fill(0, torch.tensor(3), torch.nan))


def test_the_same_layer_is_planned_where_it_is_the_standard_one() -> None:
    assert ig.plan(net(WindowNorm(8)), IMAGES[..., :8, :8]).num_groups.keys() == {"1", "4"}


@pytest.mark.parametrize("length", [10, 32])
def test_a_layer_that_moves_axes_does_not_stop_the_rest(length: int) -> None:
    class Series(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n, self.b = nn.Linear(6, 32), SwapNorm(32), nn.Linear(32, 32)
            self.m, self.h = nn.BatchNorm1d(32), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.h(self.m(self.b(self.n(self.a(x)).relu()).mean(1)).relu())

    new, plan = ig.convert(Series(), torch.randn(4, length, 6))
    assert plan.num_groups.keys() == {"m"}
    assert [item.name for item in plan.not_understood] == ["n"]
    assert type(new.n) is SwapNorm
    assert ig.convert(Series(), torch.randn(4, length, 6), exclude="n")[1].num_groups.keys() == {"m"}


class UnbiasedLayerNorm(nn.Module):
    """Divides the variance by C - 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt()
        return y * self.weight[:, None, None] + self.bias[:, None, None]


def test_a_variance_over_fewer_is_standard_enough() -> None:
    assert ig.plan(net(UnbiasedLayerNorm(8)), IMAGES).num_groups.keys() == {"1", "4"}
