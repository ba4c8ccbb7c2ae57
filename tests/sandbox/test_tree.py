"""Inputs in containers of any class."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.sandbox.calling import copy_inputs, describe
from idealgroups.sandbox.tree import tensors, tree_map

Pair = namedtuple("Pair", "a b")
VALUES: list[Any] = [
    3,
    (1, [2, 3]),
    {"a": 1, "b": {"c": (2,)}},
    OrderedDict(a=1),
    UserDict(a=1, b=[2]),
    defaultdict(list, a=1),
    Pair(1, [2]),
]


@pytest.mark.parametrize("value", VALUES)
def test_containers_keep_their_class(value: Any) -> None:
    mapped = tree_map(lambda leaf: leaf, value)
    assert type(mapped) is type(value)
    assert mapped == value
    ones = list(tensors(tree_map(lambda leaf: torch.tensor(leaf + 1), value)))
    assert ones == [leaf + 1 for leaf in map(int, tensors(tree_map(torch.tensor, value)))]


def test_a_mapping_that_cannot_be_written_to_becomes_a_dict() -> None:
    assert tree_map(str, MappingProxyType({"a": 1})) == {"a": "1"}


class Takes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 3))

    def forward(self, image: Tensor, scale: float = 1.0) -> Tensor:
        return self.body(image * scale)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict, MappingProxyType])
def test_any_mapping_is_passed_as_keywords(kind: Any) -> None:
    x = torch.randn(4, 3, 8, 8)
    plan = ig.plan(Takes(), kind({"image": x, "scale": 0.5}))
    assert plan.num_groups.keys() == {"body.1"}
    assert describe(kind({"image": x})) == "{image: 4x3x8x8}"


def test_inputs_are_copied_in_any_mapping() -> None:
    x = torch.ones(2, dtype=torch.float16)
    own = copy_inputs(UserDict(image=x, more=[x]))
    own["image"].zero_()
    assert x.eq(1).all()
    assert own["more"][0].dtype == torch.float32
