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
from idealgroups.records import Gradients, NotUnderstood, Site, WeightGradient
from idealgroups.results import Plan
from idealgroups.theory.formulas import divisors

SITE = Site(
    name="stem.norm",
    kind="BatchNorm2d",
    num_channels=64,
    positions=49,
    groups_before=None,
    ideal=5.25,
    num_groups=4,
    gain=0.02,
    note="γ = 0 measured as 1",
)
PLAN = Plan(
    model="Net",
    strategy="isometric",
    input="8x3x32x32",
    seed=3,
    budget=0.1,
    before=Gradients(layers=(WeightGradient(name="a", relative=2.0), WeightGradient(name="b", relative=1.0))),
    after=Gradients(layers=(WeightGradient(name="a", relative=1.0),), silent=("b",)),
    seconds=1.5,
    sites=(SITE, dataclasses.replace(SITE, name="head.norm", groups_before=32, num_groups=8)),
    not_understood=(NotUnderstood(name="odd", why="calls F.group_norm itself"),),
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
        name=draw(names),
        kind=draw(names),
        num_channels=channels,
        positions=positions,
        groups_before=before,
        ideal=draw(floats),
        num_groups=draw(groups),
        gain=draw(floats),
        note=draw(names),
    )


gradients = st.builds(
    Gradients,
    layers=st.lists(
        st.builds(WeightGradient, name=names, relative=st.floats(1e-9, 1e9), in_line=st.booleans()), max_size=3
    ).map(tuple),
    silent=st.lists(names, max_size=2).map(tuple),
)
plans = st.builds(
    Plan,
    model=names,
    strategy=names,
    input=names,
    seed=st.integers(),
    budget=st.none() | st.floats(0, 10),
    before=st.none() | gradients,
    after=st.none() | gradients,
    output=names,
    fingerprint=names,
    one_number=st.none() | st.integers(1, 64),
    seconds=st.floats(0, 1e6),
    sites=st.lists(sites(), min_size=1, max_size=4, unique_by=lambda site: site.name).map(tuple),
    not_understood=st.lists(st.builds(NotUnderstood, name=names, why=names), max_size=3).map(tuple),
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
    assert list(data) == ["format", *(field.name for field in dataclasses.fields(Plan))]
    assert list(data["sites"][0]) == [*(field.name for field in dataclasses.fields(Site)), "group_size"]
    assert data["sites"][0]["group_size"] == 16
    assert data["not_understood"] == [{"name": "odd", "why": "calls F.group_norm itself"}]
    assert data["before"]["layers"][0]["relative"] == 2.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_know_become_null(value: float) -> None:
    plan = dataclasses.replace(PLAN, sites=(dataclasses.replace(SITE, gain=value),))
    data = json.loads(plan.to_json(), parse_constant=pytest.fail)
    assert data["sites"][0]["gain"] is None
    assert math.isnan(Plan.from_dict(data).sites[0].gain)


def test_a_plan_of_the_first_format_is_refused_in_a_sentence() -> None:
    data = PLAN.to_dict()
    del data["format"]
    with pytest.raises(IdealGroupsError, match="has format 1, and this version of idealgroups reads format 2; make a"):
        Plan.from_dict(data)


def test_the_trend_is_that_of_the_layers() -> None:
    assert PLAN.trend_before == pytest.approx(-math.log(2))
    assert math.isnan(dataclasses.replace(PLAN, before=None).trend_before)


def test_time_and_versions_do_not_make_plans_unequal() -> None:
    assert dataclasses.replace(PLAN, seconds=9.0, made_with="idealgroups 0, torch 0") == PLAN
    assert dataclasses.replace(PLAN, seed=9) != PLAN


def test_an_unknown_key_is_named_with_the_nearest() -> None:
    data = PLAN.to_dict()
    data["sites"][0]["num_group"] = 4
    with pytest.raises(IdealGroupsError, match="has no field 'num_group'; did you mean num_groups"):
        Plan.from_dict(data)


def test_from_json_is_the_inverse_of_to_json() -> None:
    assert Plan.from_json(PLAN.to_json()) == PLAN
    for text in ("", "{", "[" * 200_000):
        with pytest.raises(IdealGroupsError, match="cannot be read as JSON"):
            Plan.from_json(text)


def test_plans_made_by_hand_are_checked_too() -> None:
    with pytest.raises(IdealGroupsError, match="seed of a Plan must be int, not '3'"):
        dataclasses.replace(PLAN, seed="3")
    with pytest.raises(IdealGroupsError, match="no sites"):
        dataclasses.replace(PLAN, sites=())
    with pytest.raises(IdealGroupsError, match=r"names the layer 'stem\.norm' twice"):
        dataclasses.replace(PLAN, sites=(SITE, SITE))


def test_a_plan_without_a_budget_stays_without() -> None:
    plan = dataclasses.replace(PLAN, budget=None)
    assert Plan.from_dict(plan.to_dict()).budget is None


def test_what_a_plan_tells() -> None:
    assert PLAN.num_groups == {"stem.norm": 4, "head.norm": 8}
    assert (SITE.group_size, SITE.group_elements) == (16, 784)


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
    with pytest.raises(IdealGroupsError, match=r"cannot be read as JSON, so it holds no plan; make|is not a text file"):
        Plan.load(path)


@pytest.mark.parametrize("data", [None, 3, "plan", [], [1], {}, {"sites": None}, {"sites": [1]}, {"sites": [{}]}])
def test_json_but_no_plan(data: Any) -> None:
    if isinstance(data, dict):
        data = data | {"format": 2}
    with pytest.raises(IdealGroupsError) as caught:
        Plan.from_dict(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["model", "strategy", "input", "seed"])
def test_a_missing_key_is_named(key: str) -> None:
    data = PLAN.to_dict()
    del data[key]
    with pytest.raises(IdealGroupsError, match=f"a Plan lacks its field '{key}'"):
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
    with pytest.raises(IdealGroupsError, match=f"{key} of a Site must be "):
        Plan.from_dict(data)


@pytest.mark.parametrize(("key", "value"), [("model", None), ("seed", 1.5), ("budget", "big"), ("after", "up")])
def test_a_wrong_type_at_the_top_is_named(key: str, value: Any) -> None:
    with pytest.raises(IdealGroupsError):
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


def test_rows_whose_gain_was_not_measured_are_equal() -> None:
    """Python 3.13 no longer compares the fields of dataclasses as a tuple, and NaN does not equal NaN."""
    row = Site(name="n", kind="GroupNorm", num_channels=4, positions=9, ideal=2.0, num_groups=2, gain=math.nan)
    same = dataclasses.replace(row)
    assert row == same
    assert hash(row) == hash(same)
    assert row != dataclasses.replace(row, note="other")
    assert row != "n"
