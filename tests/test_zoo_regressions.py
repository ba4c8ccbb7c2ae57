"""What the zoo of real networks found, in its smallest form."""

from __future__ import annotations

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
    hidden = ig.apply(plan, net)[:2](x)
    assert hidden.min() == 0
    assert hidden.max() > 0
    torch.testing.assert_close(hidden, torch.relu(nn.functional.group_norm(net[0](x), 1)))
