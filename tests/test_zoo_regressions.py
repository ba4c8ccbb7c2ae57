"""What the zoo of real networks found, in its smallest form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import idealgroups as ig


class GroupNormActivation(nn.GroupNorm):
    """As in transformers' BiT: a group norm with an activation of its own, by the name of ``activation``."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels)
        self.activation = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return self.activation(super().forward(input))


def test_a_group_norm_with_an_activation_is_planned_and_keeps_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3), GroupNormActivation(8, 16), nn.Flatten(), nn.Linear(16 * 36, 5))
    x = torch.randn(4, 3, 8, 8)
    plan = ig.plan(net, x, strategy="layer")
    assert [(site.name, site.groups_before, site.num_groups) for site in plan.sites] == [("1", 8, 1)]
    hidden = ig.apply(net, plan)[:2](x)
    assert hidden.min() == 0
    assert hidden.max() > 0
    torch.testing.assert_close(hidden, torch.relu(nn.functional.group_norm(net[0](x), 1)))


class TimeBlock(nn.Module):
    """As in a diffusion U-Net: an embedding, the same at all positions, is added in front of a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.time = nn.Conv2d(3, 32, 3), nn.Linear(8, 32)
        self.norm, self.last = nn.GroupNorm(32, 32), nn.Conv2d(32, 3, 3)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        z = self.first(x) + self.time(t)[:, :, None, None]
        return self.last(torch.relu(self.norm(z)))


def test_a_plan_does_not_erase_what_is_constant_over_positions() -> None:
    torch.manual_seed(0)
    net, inputs = TimeBlock(), (torch.randn(8, 3, 16, 16), torch.randn(8, 8))
    as_instance_norm = {layer.name: layer.relative for layer in ig.measure(net, inputs).layers}
    plan = ig.plan(net, inputs)
    assert plan.num_groups["norm"] <= 16
    planned = {layer.name: layer.relative for layer in ig.measure(net, inputs, plan=plan).layers}
    assert planned["time.weight"] > 100 * as_instance_norm.get("time.weight", 0.0)


def level(dense: nn.Conv2d, depthwise: nn.Conv2d) -> float:
    """Mean log u of the depthwise convolution above that of the dense ones around it."""
    torch.manual_seed(0)
    channels = depthwise.in_channels
    net = nn.Sequential(
        nn.Conv2d(3, channels, 1, bias=False),
        nn.GroupNorm(1, channels),
        nn.ReLU(),
        depthwise,
        nn.GroupNorm(1, channels),
        nn.ReLU(),
        dense,
        nn.GroupNorm(1, dense.out_channels),
    )
    u = {layer.name: math.log(layer.relative) for layer in ig.measure(net, torch.randn(8, 3, 16, 16)).layers}
    return u["3.weight"] - u["6.weight"]


def test_depthwise_weights_have_a_level_of_their_own() -> None:
    """In front of a norm u goes with 1 / ‖W‖², and fan-out counts C outputs of an input that has one: log C more."""
    channels = 64
    dense = nn.Conv2d(channels, channels, 1, bias=False)
    depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    nn.init.normal_(depthwise.weight, std=math.sqrt(2 / 9))  # the one output that an input reaches, with nine taps
    corrected = level(dense, depthwise)
    with torch.no_grad():
        depthwise.weight /= math.sqrt(channels)  # the standard deviation of He's initialization by fan-out
    assert level(dense, depthwise) - corrected == pytest.approx(math.log(channels), rel=0.05)
