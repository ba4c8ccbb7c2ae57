"""Which weights can planned normalization layers move? Decided by the autograd graph, against answers by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import idealgroups as ig
from idealgroups import Plan
from idealgroups.measuring.observer import Observer

X = torch.randn(4, 3, 8, 8)


def block(fan_in: int, norm: bool = True) -> nn.Sequential:
    conv = nn.Conv2d(fan_in, 8, 3, padding=1)
    return nn.Sequential(conv, nn.GroupNorm(2, 8), nn.ReLU()) if norm else nn.Sequential(conv, nn.ReLU())


class Branches(nn.Module):
    """Two branches behind a stem: one with a norm, one without; and a head behind both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.normed, self.plain = block(3), block(8), block(8, norm=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((self.normed(x) + self.plain(x)).mean((2, 3)))


class Aside(nn.Module):
    """A norm whose output the loss does not depend on, behind a layer that the loss does depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = block(3, norm=False), nn.Linear(8, 5)
        self.monitor = nn.GroupNorm(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        self.statistic = self.monitor(x).sum().detach()
        return self.head(x.mean((2, 3)))


class Tied(nn.Module):
    """One weight before and after the only norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(self.norm(self.conv(x))).mean((2, 3)))


class Forces(nn.Module):
    """The output is a derivative, so every weight's gradient goes through the derivative of the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = block(3), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        energy = self.head(self.body(x).mean((2, 3))).sum()
        return torch.autograd.grad(energy, x, create_graph=True)[0]


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.body, self.head, self.use_reentrant = nn.Sequential(block(3), block(8)), nn.Linear(8, 5), use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, x, use_reentrant=self.use_reentrant).mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "x", "expected"),
    [
        (nn.Sequential(*block(3), *block(8), nn.Flatten(), nn.Linear(512, 2)), X, {"0.weight", "3.weight"}),
        (Branches(), X, {"stem.0.weight", "normed.0.weight"}),
        (Aside(), X, set()),
        (Tied(), X, {"conv.weight"}),
        (Forces(), X.clone().requires_grad_(), {"body.0.weight", "head.weight"}),
        (Checkpointed(use_reentrant=False), X, {"body.0.0.weight", "body.1.0.weight"}),
        (Checkpointed(use_reentrant=True), X.clone().requires_grad_(), {"body.0.0.weight", "body.1.0.weight"}),
    ],
    ids=["head", "branches", "aside", "tied", "forces", "checkpoint", "reentrant checkpoint"],
)
def test_weights_in_front_of_a_norm_are_in_line(model: nn.Module, x: Any, expected: set[str]) -> None:
    seen = Observer(model, x).observe(None)
    assert {layer.name for layer in seen.gradients if layer.in_line} == expected


def test_layers_that_are_not_planned_do_not_count() -> None:
    model = nn.Sequential(block(3), block(8), nn.Flatten(), nn.Linear(512, 2))
    seen = Observer(model, X, skip=lambda name: "excluded" if name == "1.1" else None).observe(None)
    assert [layer.name for layer in seen.gradients if layer.in_line] == ["0.0.weight"]


def test_groups_move_exactly_the_weights_in_line() -> None:
    """With another number of groups the gradients of the other weights change only through the signal they get."""

    class Last(nn.Module):
        """The head sees the signal before the norm, scaled by nothing: its gradient cannot depend on the groups."""

        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = block(3), nn.Linear(3, 8)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.body(x), self.head(x.mean((2, 3)))

    observer = Observer(Last(), X)
    one, many = (observer.observe({"body.1": groups}) for groups in (1, 4))
    for before, after in zip(one.gradients, many.gradients, strict=True):
        assert before.in_line == (before.name == "body.0.weight")
        assert (before.relative != after.relative) == before.in_line


class ChannelsLast(nn.LayerNorm):
    """Layer norm over channels of (N, C, H, W), whose output is a view."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Tagged(Tensor):
    """A subclass as of MONAI's images: what is computed from it is a view of a plain tensor."""


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d, nn.BatchNorm2d, ChannelsLast], ids=lambda norm: norm.__name__)
@pytest.mark.parametrize("kind", [Tensor, Tagged])
def test_a_relu_in_place_changes_nothing(norm: type[nn.Module], kind: type[Tensor]) -> None:
    """Of a view, it replaces the node in the graph."""

    def plan(inplace: bool) -> Plan:
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 16, 3), norm(16), nn.ReLU(inplace), nn.Conv2d(16, 16, 3), norm(16), nn.ReLU(inplace)]
        return ig.plan(nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 16, 5)), x.as_subclass(kind))

    x = torch.randn(8, 3, 8, 8)
    usual, in_place = plan(False), plan(True)
    assert [layer.name for layer in in_place.before.layers if layer.in_line] == ["0.weight", "3.weight"]
    assert in_place.after is not None
    assert in_place.before == usual.before
    assert in_place.after == usual.after
    assert in_place.sites == usual.sites
