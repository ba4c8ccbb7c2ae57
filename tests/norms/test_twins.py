"""Copies of a network inside the model that trains it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.norms import inventory
from idealgroups.norms.twins import find_twins

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def body() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU()
    )


class Pair(nn.Module):
    """Two networks of one structure, called ``names``; the second one runs if ``both``, without a gradient."""

    def __init__(self, names: tuple[str, str], both: bool = False, equal: bool = False) -> None:
        super().__init__()
        first = body()
        self.names, self.both = names, both
        self.add_module(names[0], first)
        self.add_module(names[1], copy.deepcopy(first) if equal else body())
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        one, other = (self.get_submodule(name) for name in self.names)
        y = self.head(one(x).mean((2, 3)))
        if not self.both:
            return (y,)
        with torch.no_grad():
            return y, other(x).mean((2, 3))


def twins(model: nn.Module, ran: tuple[str, ...] = ()) -> dict[str, str]:
    return find_twins(model, list(inventory(model).norms), ran)


def test_a_copy_is_known_by_its_name() -> None:
    assert twins(Pair(("encoder", "encoder_k"))) == {"encoder_k.1": "encoder.1", "encoder_k.4": "encoder.4"}
    assert twins(Pair(("teacher", "student"))) == {"teacher.1": "student.1", "teacher.4": "student.4"}
    assert twins(Pair(("net", "ema"))) == {"ema.1": "net.1", "ema.4": "net.4"}


def test_a_fresh_copy_is_known_by_its_values() -> None:
    assert twins(Pair(("left", "right"), equal=True)) == {"right.1": "left.1", "right.4": "left.4"}
    assert twins(Pair(("left", "right"))) == {}


def test_the_branches_of_a_block_are_no_twins() -> None:
    assert twins(Pair(("to_q", "to_k"))) == {}
    assert twins(Pair(("mean", "variance"))) == {}


def test_what_ran_stands_for_what_did_not() -> None:
    model = Pair(("left", "right"), equal=True)
    assert twins(model, ran=("right.1", "right.4")) == {"left.1": "right.1", "left.4": "right.4"}


def test_the_layers_of_a_stack_are_no_twins() -> None:
    stack = nn.Sequential(*(copy.deepcopy(body()) for _ in range(3)))
    same = nn.Sequential(*[copy.deepcopy(block) for block in [stack[0]] * 3])
    assert twins(nn.ModuleDict({"blocks": stack})) == {}
    assert twins(nn.ModuleDict({"blocks": same})) == {}


def test_a_copy_at_another_depth_is_found() -> None:
    model = nn.ModuleDict({"net": body()})
    model["ema"] = nn.ModuleDict({"module": copy.deepcopy(model["net"])})
    assert twins(model) == {"ema.module.1": "net.1", "ema.module.4": "net.4"}


def test_twins_get_one_plan_whether_they_run_or_not() -> None:
    for both in (False, True):
        new, plan = ig.convert(Pair(("student", "teacher"), both), IMAGES)
        groups = plan.num_groups
        assert groups.keys() == {"student.1", "student.4", "teacher.1", "teacher.4"}
        assert [groups[f"teacher.{i}"] for i in (1, 4)] == [groups[f"student.{i}"] for i in (1, 4)]
        assert isinstance(new.teacher[1], nn.GroupNorm)
        assert not plan.not_understood


def test_closed_strategies_give_twins_one_plan_too() -> None:
    for both in (False, True):
        model = Pair(("student", "teacher"), both)
        measured = ig.plan(model, IMAGES)
        for strategy in ("fixed-4", "block"):
            plan = ig.plan(model, IMAGES, strategy=strategy)
            assert plan.num_groups.keys() == measured.num_groups.keys()
            assert [plan.num_groups[f"teacher.{i}"] for i in (1, 4)] == [
                plan.num_groups[f"student.{i}"] for i in (1, 4)
            ]
            assert {site.name: site.note for site in plan.sites}["teacher.1"] == "as its twin student.1"
            assert not plan.not_understood
            assert isinstance(ig.apply(model, plan).teacher[1], nn.GroupNorm)


def test_a_copy_without_values_is_known_by_its_name_when_planning_from_shapes() -> None:
    plan = ig.plan(Pair(("net", "ema")).to("meta"), IMAGES, strategy="fixed-4")
    assert plan.num_groups == {"net.1": 4, "net.4": 4, "ema.1": 4, "ema.4": 4}


def test_a_copy_whose_main_network_did_not_run_is_planned_itself() -> None:
    class Alone(Pair):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return (self.head(self.get_submodule(self.names[1])(x).mean((2, 3))),)

    plan = ig.plan(Alone(("net", "ema")), IMAGES, strategy="fixed-4")
    assert plan.num_groups == {"net.1": 4, "net.4": 4, "ema.1": 4, "ema.4": 4}


def test_twins_of_which_one_has_a_layer_or_parameter_by_a_second_name_too() -> None:
    model = Pair(("net", "ema"), equal=True)
    model.net.head = model.net[3]
    model.net[0].register_parameter("again", model.net[0].weight)
    assert find_twins(model, inventory(model).norms, ["net.1", "net.4"]) == {"ema.1": "net.1", "ema.4": "net.4"}


def test_twins_of_which_one_holds_itself() -> None:
    model = Pair(("net", "ema"), equal=True)
    model.net[2]._modules["owner"] = model.net
    assert find_twins(model, inventory(model).norms, ["net.1", "net.4"]) == {"ema.1": "net.1", "ema.4": "net.4"}
