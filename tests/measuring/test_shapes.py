"""Planning from shapes alone: the same layers as a real pass finds, and nothing allocated, computed or changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import idealgroups as ig
import networks
from idealgroups.measuring.observer import Observer
from idealgroups.measuring.shapes import has_values, survey_shapes, without_values

Untouched = Callable[[nn.Module, Callable[[], Any]], Any]

NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "plain": (networks.plain, lambda: torch.randn(2, 3, 16, 16)),
    "unet": (networks.UNet, lambda: torch.randn(2, 1, 32, 32)),
    "mlp": (networks.mlp, lambda: torch.randn(4, 20)),
    "video": (networks.Video, lambda: torch.randn(2, 3, 4, 16, 16)),
    "shared": (networks.Shared, lambda: torch.randn(2, 3, 8, 8)),
    "a dict": (
        networks.Structured,
        lambda: {"pixels": torch.randn(2, 3, 16, 16), "mask": torch.ones(2, 1, 16, 16)},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_are_those_of_a_real_pass(untouched: Untouched, name: str) -> None:
    build, inputs = NETWORKS[name]
    model, x = build(), inputs()
    _, shapes = untouched(model, lambda: survey_shapes(model, x))
    real, _ = Observer(model, x).survey()
    assert shapes.positions == real.positions
    assert list(shapes.positions) == list(real.positions)
    assert (shapes.flat, shapes.weights) == (real.flat, real.weights)


def test_a_model_on_the_meta_device_or_of_fake_tensors_is_planned_like_a_real_one() -> None:
    real = ig.plan(networks.plain(), torch.randn(2, 3, 16, 16), strategy="block")
    on_meta = ig.plan(networks.plain().to("meta"), torch.randn(2, 3, 16, 16), strategy="block")
    inputs_on_meta = ig.plan(networks.plain().to("meta"), torch.randn(2, 3, 16, 16, device="meta"), strategy="block")
    with without_values():
        model, x = networks.plain(), torch.randn(2, 3, 16, 16)
    assert not has_values(model)
    fake = ig.plan(model, x, strategy="block")
    assert real.sites == on_meta.sites == inputs_on_meta.sites == fake.sites
    assert "not measured: the numbers of groups follow from the shapes alone" in " ".join(str(fake).split())


def test_what_cannot_be_held_in_memory_is_planned_from_shapes() -> None:
    with without_values():
        model = nn.Sequential(nn.Conv2d(2**15, 2**16, 9), nn.GroupNorm(32, 2**16))  # 700 GB of weights
    plan = ig.plan(model, torch.empty(1, 2**15, 16, 16, device="meta"), strategy="fixed-32")
    assert plan.num_groups == {"1": 32}


class Branching(nn.Module):
    """Which layers run depends on values, so shapes do not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return y * 2 if float(y.detach().abs().sum()) >= 0 else y


def test_a_model_that_needs_values_is_run_with_them_if_it_has_some() -> None:
    plan = ig.plan(Branching(), torch.randn(2, 3, 8, 8), strategy="fixed-32")
    assert plan.num_groups == {"norm": 8}
    with pytest.raises(ig.IdealGroupsError, match="cannot run on shapes alone"):
        ig.plan(Branching().to("meta"), torch.randn(2, 3, 8, 8), strategy="fixed-32")


def test_the_error_of_a_closed_strategy_is_that_of_the_real_model() -> None:
    with pytest.raises(ig.IdealGroupsError, match=r"0.0 \(Conv2d\) takes 3 channels"):
        ig.plan(networks.plain(), torch.randn(2, 4, 8, 8), strategy="block")


class Anchored(nn.Module):
    """Holds tensors that are neither parameters nor buffers: an attribute, and one in a list, as detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = networks.plain()
        self.scale = torch.ones(5)
        self.anchors = [torch.ones(5)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.body(x) * self.scale + self.anchors[0]
        return y


def test_tensors_that_are_plain_attributes_are_no_obstacle() -> None:
    x = torch.randn(2, 3, 12, 12)
    plan = ig.plan(Anchored(), x, strategy="fixed-4")
    assert set(plan.num_groups.values()) == {4}
