"""Plans survive the way to JSON and back, and a file that is no plan says so in a sentence."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idealgroups.errors import IdealGroupsError
from idealgroups.results import NotUnderstood, Plan, Site
from idealgroups.theory.formulas import divisors

SITE = Site("stem.norm", "BatchNorm2d", 64, 49, None, 5.25, 4, 0.02, "γ = 0 measured as 1")
PLAN = Plan(
    model="Net",
    strategy="isometric",
    input="8x3x32x32",
    seed=3,
    budget=0.1,
    trend_before=math.nan,
    trend_after=-0.2,
    spread_before=0.5,
    spread_after=0.25,
    seconds=1.5,
    sites=(SITE, dataclasses.replace(SITE, name="head.norm", groups_before=32, num_groups=8)),
    not_understood=(NotUnderstood("odd", "calls F.group_norm itself"),),
)

floats = st.floats(allow_infinity=False)
names = st.text(max_size=12)


@st.composite
def sites(draw: st.DrawFn) -> Site:
    channels = draw(st.integers(1, 2048))
    groups = st.sampled_from(divisors(channels))
    before = draw(st.none() | groups)
    positions = draw(st.integers(1, 10**6))
    return Site(
        draw(names), draw(names), channels, positions, before, draw(floats), draw(groups), draw(floats), draw(names)
    )


plans = st.builds(
    Plan,
    model=names,
    strategy=names,
    input=names,
    seed=st.integers(),
    budget=st.none() | st.floats(0, 10),
    trend_before=floats,
    trend_after=floats,
    spread_before=floats,
    spread_after=floats,
    seconds=st.floats(0, 1e6),
    sites=st.lists(sites(), max_size=4).map(tuple),
    not_understood=st.lists(st.builds(NotUnderstood, names, names), max_size=3).map(tuple),
)


def same(one: Any, other: Any) -> bool:
    """Equal, where not-a-number equals itself."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one)
        )
    if isinstance(one, tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and one == other


# --- there and back --------------------------------------------------------------------------------------------------


@given(plans)
def test_json_round_trip(plan: Plan) -> None:
    assert same(Plan.from_dict(json.loads(plan.to_json())), plan)


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    PLAN.save(path)
    assert same(Plan.load(path), PLAN)
    PLAN.save(str(path))  # over an old one
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_json_has_the_promised_keys() -> None:
    data = json.loads(PLAN.to_json())
    assert list(data) == [
        *("model", "strategy", "input", "seed", "budget", "trend_before", "trend_after", "spread_before"),
        *("spread_after", "seconds", "sites", "not_understood", "lowest_trend", "one_number", "optimizer"),
        *("calibrated_on", "output_residual"),
    ]
    assert list(data["sites"][0]) == [
        *("name", "kind", "num_channels", "positions", "groups_before", "ideal", "num_groups", "channels_per_group"),
        *("gain", "note", "eps", "residual"),
    ]
    assert data["sites"][0]["channels_per_group"] == 16
    assert data["not_understood"] == [{"name": "odd", "why": "calls F.group_norm itself"}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_know_become_null(value: float) -> None:
    plan = dataclasses.replace(PLAN, trend_before=value, sites=(dataclasses.replace(SITE, gain=value),))
    data = json.loads(plan.to_json(), parse_constant=pytest.fail)
    assert data["trend_before"] is None
    assert data["sites"][0]["gain"] is None
    assert math.isnan(Plan.from_dict(data).trend_before)
    assert math.isnan(Plan.from_dict(data).sites[0].gain)


def test_a_plan_saved_before_it_told_how_far_the_trend_may_fall_is_read() -> None:
    data = PLAN.to_dict()
    del data["lowest_trend"], data["one_number"], data["optimizer"]
    assert same(Plan.from_dict(data), PLAN)


def test_a_plan_without_a_budget_stays_without() -> None:
    plan = dataclasses.replace(PLAN, budget=None)
    assert Plan.from_dict(plan.to_dict()).budget is None


def test_what_a_plan_tells() -> None:
    assert PLAN.num_groups == {"stem.norm": 4, "head.norm": 8}
    assert (SITE.channels_per_group, SITE.group_elements) == (16, 784)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(IdealGroupsError, match=r"cannot read the plan .*missing\.json: No such file"):
        Plan.load(tmp_path / "missing.json")
    with pytest.raises(IdealGroupsError, match="cannot read the plan"):
        Plan.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"plan", b"\xff\xfe\x00"])
def test_not_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(IdealGroupsError, match=r"plan\.json is not JSON; make a plan with"):
        Plan.load(path)


@pytest.mark.parametrize("data", [None, 3, "plan", [], [1], {}, {"sites": None}, {"sites": [1]}, {"sites": [{}]}])
def test_json_but_no_plan(data: Any) -> None:
    with pytest.raises(IdealGroupsError, match=r"this is not a plan of idealgroups.*; make one with") as caught:
        Plan.from_dict(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    sorted(f.name for f in dataclasses.fields(Plan) if f.default is dataclasses.MISSING or f.name == "not_understood"),
)
def test_a_missing_key_is_named(key: str) -> None:
    data = PLAN.to_dict()
    del data[key]
    with pytest.raises(IdealGroupsError, match=f"lacks '{key}'"):
        Plan.from_dict(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("name", 3), ("num_channels", "64"), ("num_channels", 64.0), ("positions", None), ("groups_before", "all")),
        *(("ideal", "many"), ("ideal", []), ("num_groups", None), ("num_groups", True), ("gain", {}), ("note", None)),
    ],
)
def test_a_value_of_the_wrong_type_is_named(key: str, value: Any) -> None:
    data = PLAN.to_dict()
    data["sites"][1][key] = value
    with pytest.raises(IdealGroupsError, match=f"{key} is "):
        Plan.from_dict(data)


@pytest.mark.parametrize(("key", "value"), [("model", None), ("seed", 1.5), ("budget", "big"), ("trend_after", "up")])
def test_a_wrong_type_at_the_top_is_named(key: str, value: Any) -> None:
    with pytest.raises(IdealGroupsError, match=f"{key} is "):
        Plan.from_dict(PLAN.to_dict() | {key: value})


@pytest.mark.parametrize(("channels", "groups"), [(64, 5), (64, 0), (64, -4), (64, 128), (0, 1)])
def test_groups_that_do_not_divide_the_channels(channels: int, groups: int) -> None:
    data = PLAN.to_dict()
    data["sites"][0] |= {"num_channels": channels, "num_groups": groups}
    with pytest.raises(
        IdealGroupsError, match=rf"gives stem\.norm {groups} groups, which do not divide its {channels}"
    ):
        Plan.from_dict(data)


def test_saving_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(IdealGroupsError, match="cannot write the plan to"):
        PLAN.save(tmp_path / "no" / "such" / "folder.json")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IdealGroupsError, match="cannot write the plan to"):
        PLAN.save(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
