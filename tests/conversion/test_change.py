"""Layers change where they stand: all of them or none, with their own tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import idealgroups as ig
from idealgroups.conversion.change import all_or_nothing, set_norms
from idealgroups.conversion.travel import Settings
from idealgroups.norms import inventory


class Slotted(nn.BatchNorm2d):
    """Its objects have another layout than a group norm's, so Python does not let their class change."""

    __slots__ = ("note",)


def test_a_class_with_slots_is_refused_and_nothing_is_half_converted(untouched: Callable[..., Any]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), Slotted(8))
    x = torch.randn(2, 3, 8, 8)
    with pytest.raises(ig.IdealGroupsError, match=r"3 is a Slotted, whose class has __slots__.*exclude='3'"):
        untouched(model, lambda: ig.convert(model, x, inplace=True))
    assert [type(module) for module in model] == [nn.Conv2d, nn.BatchNorm2d, nn.Conv2d, Slotted]
    assert model[1].running_mean is not None
    new, _ = ig.convert(model, x, exclude="3", inplace=True)
    assert isinstance(new[1], nn.GroupNorm)


def test_an_error_after_all_changes_puts_everything_back(untouched: Callable[..., Any]) -> None:
    wide = nn.GroupNorm(4, 8)
    flat = nn.BatchNorm2d(8)
    flat.weight = nn.Parameter(torch.rand(8))
    flat.weight.grad = torch.rand(8)
    model = nn.Sequential(wide, flat, nn.InstanceNorm2d(8), nn.BatchNorm2d(8, affine=False))
    before = [(type(module), dict(vars(module))) for module in model]

    def change() -> None:
        with all_or_nothing() as undo:
            settings = {str(i): Settings(2, 0.1) for i in range(4)}
            set_norms(model, settings, inventory(model).norms, undo, "the test", {"3.weight"})
            assert all(type(module) is nn.GroupNorm for module in model)
            assert model[3].weight.shape == (8,)
            raise RuntimeError("afterwards")

    with pytest.raises(RuntimeError, match="afterwards"):
        untouched(model, change)
    assert [(type(module), dict(vars(module))) for module in model] == before


def test_shared_parameters_stay_shared_and_memory_formats_stay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    model[3].weight = model[1].weight
    model = model.to(memory_format=torch.channels_last)
    strides = model[2].weight.stride()
    new, _ = ig.convert(model, torch.randn(2, 3, 8, 8))
    assert new[3].weight is new[1].weight
    assert new[3].weight is not model[1].weight
    assert new[2].weight.stride() == strides
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    assert new(x).is_contiguous(memory_format=torch.channels_last) == model(x).is_contiguous(
        memory_format=torch.channels_last
    )
