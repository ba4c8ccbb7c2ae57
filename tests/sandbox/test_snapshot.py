"""After a pass everything is what it was before, whatever the pass changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.immutable_collections import immutable_list

import idealgroups as ig
from idealgroups.conversion.restoring import set_groups
from idealgroups.sandbox.copying import copy_model
from idealgroups.sandbox.snapshot import SMALL, Snapshot


class Changes(nn.Module):
    def __init__(self, change: Callable[[Changes], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.book = nn.Parameter(torch.ones(3), requires_grad=False)
        self.long = nn.Parameter(torch.ones(SMALL + 1), requires_grad=False)
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("wide", torch.zeros(1).expand(3))
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        self.register_buffer("none", None)
        self.spare = nn.Linear(3, 3)
        self.steps, self.cache, self.nested = 0, [1, 2], {"a": [1]}
        count = [0]
        self.layer.register_forward_hook(lambda *_: count.__setitem__(0, count[0] + 1))
        self.count = lambda: count[0]
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.change(self)
        return self.layer(x)  # type: ignore[no-any-return]


def state(model: Changes) -> tuple[Any, ...]:
    tensors = {key: value.to_dense().tolist() for key, value in model.state_dict().items()}
    tensors["types"] = [tensor.dtype for tensor in model.state_dict().values()]
    return tensors, model.steps, list(model.cache), str(model.nested), model.count(), sorted(vars(model))


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a parameter in place": lambda m: m.book.mul_(0.5),
    "a weight in place": lambda m: m.layer.weight.mul_(0.5),
    "a weight's memory in place": lambda m: m.layer.weight.data.mul_(0.5),
    "a large parameter's memory in place": lambda m: m.long.data.mul_(0.5),
    "a weight's axes": lambda m: setattr(m.layer.weight, "data", m.layer.weight.data.t()),
    "a weight's type": lambda m: setattr(m.book, "data", m.book.data.view(torch.int32)),
    "a new layer": lambda m: setattr(m, "fresh", nn.Linear(3, 3)),
    "a layer by another": lambda m: setattr(m, "spare", nn.Linear(3, 3)),
    "a weight's memory": lambda m: setattr(m.layer.weight, "data", m.layer.weight.data * 2),
    "a parameter by another": lambda m: setattr(m, "book", nn.Parameter(torch.zeros(3))),
    "a buffer in place": lambda m: m.seen.add_(1),
    "a buffer resized": lambda m: m.seen.resize_(4).fill_(1),
    "a buffer by another": lambda m: setattr(m, "seen", torch.ones(5)),
    "a new buffer": lambda m: m.register_buffer("fresh", torch.ones(1)),
    "an expanded buffer by another": lambda m: setattr(m, "wide", m.wide + 1),
    "a sparse buffer by another": lambda m: setattr(m, "sparse", m.sparse * 2),
    "a number": lambda m: setattr(m, "steps", m.steps + 1),
    "a new attribute": lambda m: setattr(m, "note", 1),
    "a list": lambda m: m.cache.append(3),
    "a list in a dict": lambda m: m.nested["a"].append(2),
    "nothing": lambda m: None,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("with_source", [False, True])
def test_a_pass_is_undone(change: Callable[[Any], Any], with_source: bool) -> None:
    source = Changes(change)
    model = copy_model(source)
    before = state(model)
    parameters = list(model.parameters())
    snapshot = Snapshot(model, source if with_source else None)
    for _ in range(2):
        model(torch.randn(2, 3))
        assert state(model) != before  # the hook counts in any case
        snapshot.restore()
        assert state(model) == before
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert state(source) == before


def test_values_that_the_source_does_not_have_are_remembered() -> None:
    source = nn.Linear(2, 2)
    model = copy_model(source)
    nn.init.ones_(model.weight)
    snapshot = Snapshot(model, source)
    nn.init.zeros_(model.weight)
    snapshot.restore()
    assert model.weight.eq(1).all()


def test_values_that_a_converted_copy_has_from_its_source_are_not_remembered_twice() -> None:
    """Though the copy has other tensors: the statistics of the norm are gone."""
    source = nn.Sequential(nn.Conv2d(3, 64, 5), nn.BatchNorm2d(64), nn.Conv2d(64, 64, 3), nn.ReLU())
    model = set_groups(copy_model(source), {"1": 2})
    nn.init.ones_(model[0].weight)
    snapshot = Snapshot(model, source)
    kept = {id(kept.tensor): kept.values.data_ptr() for kept in (*snapshot._large, *snapshot._small)}
    theirs = {name: parameter.data_ptr() for name, parameter in source.named_parameters()}
    shared = {name for name, tensor in model.named_parameters() if kept.get(id(tensor)) == theirs[name]}
    assert shared == {"0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}
    assert len(snapshot._large) == 2


def test_what_a_copy_shares_with_its_source_is_put_back_in_both() -> None:
    source = nn.BatchNorm1d(2)
    model = copy_model(source)
    model.running_mean = source.running_mean
    snapshot = Snapshot(model, source)
    model(torch.randn(8, 2) + 5)
    snapshot.restore()
    assert source.running_mean is not None
    assert source.running_mean.eq(0).all()


def test_a_parameter_that_shrinks_in_every_pass_changes_no_plan() -> None:
    class Shrinks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 3))
            self.book = nn.Parameter(torch.ones(1), requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.book.mul_(0.5)
            return self.body(x * self.book)  # type: ignore[no-any-return]

    model, x = Shrinks(), torch.randn(4, 3, 8, 8)
    first, again = ig.plan(model, x), ig.plan(model, x)
    assert first.trend_before == again.trend_before
    assert first.trend_after == again.trend_after
    assert model.book.item() == 1


def fails(*_: Any) -> Any:
    raise NotImplementedError("it has no such thing")


def itself(value: Any, _: object) -> Any:
    return value


class OddTuple(tuple[int, ...]):
    """As e3nn's: a record, whose fields are no items. It has neither length nor truth, nor can it be compared."""

    __slots__ = ()
    __len__ = __iter__ = __eq__ = __bool__ = fails
    __hash__ = tuple.__hash__
    __deepcopy__ = itself


class OddList(list[int]):
    __len__ = __iter__ = __eq__ = __bool__ = fails
    __deepcopy__ = itself


class OddDict(dict[str, int]):
    __len__ = __iter__ = __eq__ = __bool__ = values = items = keys = fails
    __deepcopy__ = itself


class OddSet(set[int]):
    __len__ = __iter__ = __eq__ = __bool__ = fails
    __deepcopy__ = itself


class OddDeque(deque[int]):
    __len__ = __iter__ = __eq__ = __bool__ = fails
    __deepcopy__ = itself


ODD = (OddTuple((1, 2)), OddList((1, 2)), OddDict(a=1), OddSet((1, 2)), OddDeque((1, 2)))


@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_a_model_may_hold_containers_that_cannot_be_walked(value: Any) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    for module in (model, *model):
        module.value = value
    converted, _ = ig.convert(model, torch.randn(4, 3, 8, 8))
    assert isinstance(converted[1], nn.GroupNorm)
    assert converted.value is value


def test_functions_in_an_immutable_list_are_those_of_the_copy() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.calls = immutable_list([lambda x: model[0](x)])
    twin = copy_model(model)
    nn.init.zeros_(twin[0].weight)
    nn.init.zeros_(twin[0].bias)
    assert not twin.calls[0](torch.randn(3, 2)).any()
    assert model.calls[0](torch.randn(3, 2)).any()
