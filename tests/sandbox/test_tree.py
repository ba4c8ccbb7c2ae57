"""Inputs in containers of any class."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Iterator, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.measuring.observer import Observer
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


class Store(MutableMapping[str, Any]):
    """Its copy shares the items."""

    def __init__(self, **items: Any) -> None:
        self.items_of_both, self.note = items, "kept"

    def __getitem__(self, key: str) -> Any:
        return self.items_of_both[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.items_of_both[key] = value

    def __delitem__(self, key: str) -> None:
        del self.items_of_both[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.items_of_both)

    def __len__(self) -> int:
        return len(self.items_of_both)


def test_a_mapping_that_shares_its_items_with_its_copy_is_left_as_it_is() -> None:
    x, y = torch.ones(2), torch.zeros(2)
    store = Store(flag=True, x=x, y=y)
    copied = copy_inputs(store)
    copied["x"].mul_(3)
    copied["new"] = 1
    assert (type(copied), copied.note, copied["flag"]) == (Store, "kept", True)
    assert copied["y"].tolist() == [0, 0]
    assert [*store] == ["flag", "x", "y"]
    assert store["x"] is x
    assert x.tolist() == [1, 1]
    assert copied["y"] is not store["y"] is y


class Fresh(Mapping[str, Tensor]):
    """Draws its image each time it is asked for it."""

    def __init__(self) -> None:
        self.reads = 0

    def __getitem__(self, key: str) -> Tensor:
        self.reads += 1
        return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(self.reads))

    def __iter__(self) -> Iterator[str]:
        return iter(("image",))

    def __len__(self) -> int:
        return 1


def test_all_passes_get_the_same_inputs_from_a_mapping_that_draws_them() -> None:
    inputs = Fresh()
    observer = Observer(Takes(), inputs)
    reads = inputs.reads
    _, first = observer.survey()
    assert observer.observe(None).gradients == first.gradients
    assert inputs.reads == reads
