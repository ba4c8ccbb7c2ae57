"""Strategies: their names, the baselines by hand, and the rule on a made-up network."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest

from idealgroups.errors import IdealGroupsError
from idealgroups.theory.layer import Choice, Groups, Layer
from idealgroups.theory.strategies import (
    BASELINES,
    STRATEGIES,
    Block,
    Fixed,
    Gcd,
    GroupSize,
    Instance,
    Isometric,
    OneGroup,
    Sqrt,
    Strategy,
    Uniform,
    parse_strategy,
)

from .test_solve import Made, World

WIDTHS = (64, 48, 7, 1, 512)


def never(groups: Groups, with_curves: bool) -> Made:
    raise AssertionError("a closed strategy measured")


def layers(*widths: int, positions: int = 1000) -> list[Layer]:
    return [Layer(name=f"layer{i}", num_channels=c, positions=positions) for i, c in enumerate(widths)]


def choose(strategy: Strategy, *widths: int, positions: int = 1000) -> Choice[Made]:
    return strategy.choose(layers(*widths, positions=positions), never)


@pytest.mark.parametrize(
    ("strategy", "name", "groups"),
    [
        (Fixed(), "fixed-32", [32, 24, 7, 1, 32]),
        (Fixed(8), "fixed-8", [8, 8, 7, 1, 8]),
        (Gcd(), "gcd-32", [32, 16, 1, 1, 32]),
        (GroupSize(), "group-size-16", [4, 3, 1, 1, 32]),
        (GroupSize(2), "group-size-2", [32, 24, 1, 1, 256]),
        (parse_strategy("min-32-quarter"), "min-32-quarter", [16, 12, 1, 1, 32]),
        (Sqrt(), "sqrt", [8, 6, 1, 1, 16]),
        (OneGroup(), "layer", [1, 1, 1, 1, 1]),
        (Instance(), "instance", [64, 48, 7, 1, 512]),
    ],
)
def test_baselines_by_hand(strategy: Strategy, name: str, groups: list[int]) -> None:
    assert list(choose(strategy, *WIDTHS).groups.values()) == groups
    assert parse_strategy(name) == strategy
    assert strategy.name == name


def test_baselines_leave_four_elements_in_a_group_and_say_so() -> None:
    choice = choose(Fixed(), 64, positions=1)
    assert choice.groups == {"layer0": 16}
    assert choice.notes["layer0"] == "32 groups would have 2 elements each"


def test_every_name_is_that_of_its_strategy() -> None:
    assert [parse_strategy(name).name for name in STRATEGIES] == list(STRATEGIES)
    assert all(parse_strategy(name).closed for name in (*BASELINES, "block"))
    assert not any(strategy.closed for strategy in (Isometric(), Uniform()))
    assert parse_strategy(Fixed(4)) == Fixed(4)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("isometrik", "did you mean isometric?"),
        ("fixed-0", "did you mean fixed-32?"),
        ("groupsize-16", "did you mean group-size-16?"),
        ("???", "choose one of isometric"),
    ],
)
def test_unknown_strategy(name: str, hint: str) -> None:
    with pytest.raises(IdealGroupsError, match=r"there is no strategy") as caught:
        parse_strategy(name)
    assert hint in str(caught.value)


@pytest.mark.parametrize("what", [Block, 32, None])
def test_what_is_no_strategy(what: object) -> None:
    with pytest.raises(IdealGroupsError, match="is no strategy"):
        parse_strategy(what)  # type: ignore[arg-type]


def test_isometric_keeps_its_limit_and_says_the_one_number() -> None:
    # Ten layers alike: T at c is 0.2 - 10·b(c); c = 4 holds at -0.6, c = 2 falls to -1.5. The one number is the same.
    world = World([0.318] * 10, slope=0.2, sensitivity=1.0)
    choice = Isometric().choose(layers(*[64] * 10, positions=64), world.observe)
    assert set(choice.groups.values()) == {16}
    assert (choice.lowest_trend, choice.one_number) == (-1.0, 16)
    assert choice.measured is not None
    assert choice.measured.trend == pytest.approx(world.trend(choice.groups))
    assert all(16 <= ideal < 32 for ideal in choice.ideals.values())


def test_a_larger_slack_never_gives_fewer_groups() -> None:
    chosen = []
    for slack in (0.0, 0.5, 1.0, 2.0):
        world = World([0.2, 0.4, 0.6] * 5, slope=0.5)
        chosen.append(Isometric(slack).choose(layers(*[64] * 15, positions=64), world.observe).groups)
    for few, many in pairwise(chosen):
        assert all(many[name] >= number for name, number in few.items())


@pytest.mark.parametrize(("strategy", "groups"), [(Uniform(), 16), (Uniform("group_size"), 16)])
def test_uniform_follows_the_same_rule(strategy: Strategy, groups: int) -> None:
    world = World([0.318] * 10, slope=0.2, sensitivity=1.0)
    choice = strategy.choose(layers(*[64] * 10, positions=64), world.observe)
    assert set(choice.groups.values()) == {groups}
    assert world.passes <= 6


def test_no_torch_is_needed_for_the_theory() -> None:
    code = (
        "import importlib.util, sys, types; sys.modules['torch'] = None\n"
        "root = importlib.util.find_spec('idealgroups').submodule_search_locations\n"
        "package = sys.modules['idealgroups'] = types.ModuleType('idealgroups'); package.__path__ = list(root)\n"
        "from idealgroups.theory import block, curves, formulas, grouping, layer, line, solve, strategies"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_faithful_is_for_convert() -> None:
    with pytest.raises(IdealGroupsError, match="use convert, not plan"):
        parse_strategy("faithful")
