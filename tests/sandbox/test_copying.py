"""A copy shares nothing with the model: not its layers, not the containers of its hooks, not its memory."""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict, deque
from functools import partial
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.sandbox.copying import copy_model


class Tapped(nn.Module):
    """Depth networks: a hook keeps an activation that the forward pass reads."""

    def __init__(self, hook: Any) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, 2, 1)
        self.taps = hook(self)

    def forward(self, x: Tensor) -> Tensor:
        self.body(x)
        taps = self.taps
        return self.head(taps["a"] if isinstance(taps, dict) else taps[-1])  # type: ignore[no-any-return]


def by_dict(model: Tapped) -> Any:
    taps: dict[str, Tensor] = {}
    model.body.register_forward_hook(lambda m, i, o: taps.update(a=o))
    return taps


def by_ordered_dict(model: Tapped) -> Any:
    taps: OrderedDict[str, Tensor] = OrderedDict()

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        taps["a"] = output

    model.body.register_forward_hook(hook)
    return taps


def by_list(model: Tapped) -> Any:
    taps: list[Tensor] = []
    model.body.register_forward_hook(lambda m, i, o: taps.append(o))
    return taps


def by_deque(model: Tapped) -> Any:
    taps: deque[Tensor] = deque(maxlen=1)
    model.body.register_forward_hook(lambda m, i, o: taps.append(o))
    return taps


def by_partial(model: Tapped) -> Any:
    taps: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        taps[name] = output

    model.body.register_forward_hook(partial(keep, "a"))
    return taps


def by_default(model: Tapped) -> Any:
    taps: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: Any, output: Tensor, into: dict[str, Tensor] = taps) -> None:
        into["a"] = output

    model.body.register_forward_hook(keep)
    return taps


def by_nested_functions(model: Tapped) -> Any:
    taps: dict[str, Tensor] = {}

    def write(output: Tensor) -> None:
        taps["a"] = output

    model.body.register_forward_hook(lambda m, i, o: write(o))
    return taps


HOOKS = (by_dict, by_ordered_dict, by_list, by_deque, by_partial, by_default, by_nested_functions)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("ran_before", [False, True])
def test_what_a_hook_shares_with_the_model_its_copy_shares_with_the_copy(hook: Any, ran_before: bool) -> None:
    model = Tapped(hook)
    x = torch.randn(2, 3, 6, 6)
    if ran_before:
        model(x)
    kept = len(model.taps)
    twin = copy_model(model)
    torch.testing.assert_close(twin(x), model(x))
    assert not torch.equal(twin(x), twin(2 * x))
    twin(x).sum().backward()
    assert twin.body[0].weight.grad is not None
    assert model.body[0].weight.grad is None
    assert len(model.taps) in (kept + 1, 1)  # of its own run only


@pytest.mark.parametrize("hook", HOOKS)
def test_a_model_whose_hooks_keep_activations_is_converted_right(hook: Any) -> None:
    x = torch.randn(4, 3, 8, 8)
    new, plan = ig.convert(Tapped(hook), x)
    assert plan.num_groups.keys() == {"body.1"}
    assert not torch.equal(new(x), new(10 * x + 1))


def test_a_recursive_function_and_an_empty_cell_are_copied() -> None:
    model = nn.Sequential(nn.Linear(2, 2))

    def count(n: int) -> int:
        return 0 if n == 0 else 1 + count(n - 1) + 0 * len(list(model.parameters()))

    def late() -> int:
        return never

    if not model:
        never = 1
    model.count, model.late = count, late
    twin: Any = copy_model(model)
    assert twin.count(3) == 3
    assert twin.count is not count


def test_a_function_that_refers_to_nothing_of_the_model_stays_itself() -> None:
    number = 3
    model = nn.Sequential(nn.Linear(2, 2))
    model.scale = lambda x: x * number
    assert copy_model(model).scale is model.scale


def test_a_wrapped_forward_runs_the_layer_of_the_copy() -> None:
    layer = nn.Linear(2, 2)
    original = layer.forward

    def forward(x: Tensor) -> Tensor:
        return 2 * original(x)

    layer.forward = forward  # type: ignore[method-assign]
    twin = copy_model(layer)
    nn.init.zeros_(twin.weight)
    nn.init.zeros_(twin.bias)
    x = torch.randn(3, 2)
    assert not twin(x).any()
    assert layer(x).any()


def test_a_compiled_function_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.fast = torch.compile(model[0].forward)
    with pytest.raises(ig.IdealGroupsError, match=r"fast is a compiled function.*before torch\.compile"):
        copy_model(model)


class AnyName:
    """A configuration that has every name."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


class NoOtherName(dict[str, int]):
    """One whose missing names are missing keys."""

    def __getattr__(self, name: str) -> int:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]


@pytest.mark.parametrize("value", [AnyName(), NoOtherName(a=1)], ids=["any name", "no other name"])
def test_an_object_with_names_of_its_own_is_no_compiled_function(value: object) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    model.config = value  # type: ignore[assignment]
    converted, _ = ig.convert(model, torch.randn(4, 3, 8, 8))
    assert isinstance(converted[1], nn.GroupNorm)
    assert type(converted.config) is type(value)


def test_a_compiled_method_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.fast = MethodType(torch.compile(lambda self, x: self[0](x)), model)  # type: ignore[assignment]
    with pytest.raises(ig.IdealGroupsError, match=r"fast is a compiled function.*before torch\.compile"):
        copy_model(model)


def test_a_function_that_is_kept_from_compiling_is_copied_like_any_other() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.plainly = torch.compiler.disable(self.apply_linear)

        def apply_linear(self, x: Tensor) -> Tensor:
            return self.linear(x)

        def forward(self, x: Tensor) -> Tensor:
            return self.plainly(x)

    model = Keeps()
    twin = copy_model(model)
    nn.init.zeros_(twin.linear.weight)
    nn.init.zeros_(twin.linear.bias)
    x = torch.randn(3, 2)
    assert not twin(x).any()
    assert model(x).any()


def test_buffers_that_share_memory_share_that_of_the_copy() -> None:
    class Shares(nn.Module):
        whole: Tensor
        part: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("whole", torch.arange(6.0))
            self.register_buffer("part", self.whole[2:5:2])
            self.rows = [self.whole[:3]]

    model = Shares()
    twin = copy_model(model)
    twin.whole.fill_(7)
    assert twin.part.tolist() == [7, 7]
    assert twin.rows[0].tolist() == [7, 7, 7]
    assert twin.part.stride() == model.part.stride()
    assert model.whole.tolist() == list(range(6))
    assert model.part.tolist() == [2, 4]


class Keeper(nn.Module):
    """Refers to modules and containers in every way that a copy has to follow."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        vars(self.inner)["owner"] = self
        self.by_name = {"first": self.inner[0], "sizes": {"a": [1, 2]}}
        self.sizes = self.by_name["sizes"]
        self.kernel, self.pair = (3, 3), (self.inner[1], 1)
        self.counted = {3: "c", None: "n"}


def test_references_between_modules_lead_into_the_copy() -> None:
    model = Keeper()
    twin = copy_model(model)
    assert vars(twin.inner)["owner"] is twin
    assert twin.by_name["first"] is twin.inner[0]
    assert twin.sizes is twin.by_name["sizes"]
    assert twin.sizes is not model.sizes
    assert twin.pair == (twin.inner[1], 1)
    assert twin.counted == {3: "c", None: "n"}
    assert [*vars(twin)] == [*vars(model)]
    assert not {id(tensor) for tensor in model.state_dict().values()} & {id(tensor) for tensor in twin.parameters()}


def test_modules_with_a_way_of_their_own_to_be_copied_keep_it() -> None:
    class Reduced(nn.Linear):
        def __reduce__(self) -> Any:
            return Reduced, (3, 2)

    class Deep(nn.Linear):
        def __deepcopy__(self, memo: Any) -> Deep:
            twin = Deep(2, 2)
            twin.mark = "own"
            return twin

    class State(nn.Linear):
        def __getstate__(self) -> Any:
            return {**vars(self), "came_from": "state"}

        def __setstate__(self, state: Any) -> None:
            super().__setstate__(state)
            self.set_by = list(vars(self))[-1]

    model = nn.Sequential(Reduced(2, 2), Deep(2, 2), State(2, 2))
    twin: Any = copy_model(model)
    assert twin[0].in_features == 3
    assert twin[1].mark == "own"
    assert (twin[2].came_from, twin[2].set_by) == ("state", "came_from")


def test_what_raises_when_modules_are_filled_one_by_one_is_left_to_deepcopy() -> None:
    class Picky(nn.Linear):
        def __setstate__(self, state: Any) -> None:
            super().__setstate__(state)
            _ = self.before.weight  # it is read when the module before it has been filled

    model = nn.Sequential(nn.Linear(2, 2), Picky(2, 2))
    vars(model[1])["before"] = model[0]
    twin = copy_model(model)
    assert vars(twin[1])["before"] is twin[0]


class Scale:
    """Knows a layer, and takes from it how large it is when it is made or copied."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.size = layer, getattr(layer, "size", 1)

    def __deepcopy__(self, memo: Any) -> Scale:
        return Scale(copy.deepcopy(self.layer, memo))


@pytest.mark.parametrize(("holder", "known"), [(0, 1), (1, 0), (1, None), (None, 1)])
def test_what_looks_at_a_layer_when_it_is_copied_sees_the_layer_whole(holder: int | None, known: int | None) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    known_layer = model if known is None else model[known]
    known_layer.size = 5
    place = model if holder is None else model[holder]
    place.scale = Scale(known_layer)
    twin, plain = copy_model(model), copy.deepcopy(model)
    found = (twin if holder is None else twin[holder]).scale
    assert found.layer is (twin if known is None else twin[known])
    assert found.size == (plain if holder is None else plain[holder]).scale.size


KINDS = [(nn.Conv2d, (2, 2, 1)), (nn.BatchNorm2d, (2,)), (nn.ReLU, ()), (nn.Sequential, (nn.ReLU(),))]


@pytest.mark.parametrize("compiled", [False, True], ids=["before", "after torch.compile"])
@pytest.mark.parametrize(("kind", "arguments"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
def test_copies_of_a_class_share_the_keys_of_their_attributes(
    kind: type[nn.Module], arguments: tuple[Any, ...], compiled: bool
) -> None:
    """As modules that a constructor made do; a small network is half Python objects.

    Of a class of their own, for a class whose objects have got too many names shares them no more.
    """
    if compiled:
        torch.compile(nn.ReLU(), backend="eager")(torch.ones(1))  # torch puts methods of its own into nn.Module
    layer = type(kind.__name__, (kind,), {})(*arguments)
    twin = copy_model(layer)
    assert list(vars(twin)) == list(vars(layer))
    assert sys.getsizeof(vars(twin)) <= sys.getsizeof(vars(layer)) < sys.getsizeof(dict(vars(layer)))
