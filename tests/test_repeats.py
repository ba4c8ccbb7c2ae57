"""Several plans of one network: the range of each layer, by hand and of a real network."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest

import idealgroups as ig
import networks
from idealgroups.repeats import LayerRange, Repeats
from idealgroups.synthetic import synthetic
from idealgroups.text import signed


def test_ranges_by_hand() -> None:
    layer = LayerRange(name="a", num_channels=24, group_sizes=(4, 2, 8))
    assert layer.median == 4
    assert layer.steps == 4  # 2, 3, 4, 6, 8
    assert LayerRange(name="a", num_channels=24, group_sizes=(4, 4)).steps == 0


def test_a_repeated_plan_has_the_plans_of_its_seeds() -> None:
    model = networks.plain()
    found = ig.repeat(model, lambda seed: synthetic((4, 3, 16, 16), seed=seed), times=3, seed=5)
    alone = ig.plan(model, synthetic((4, 3, 16, 16), seed=6), seed=6)
    assert found.plans[1].num_groups == alone.num_groups
    assert [layer.name for layer in found.layers] == [site.name for site in alone.sites]
    assert [layer.group_sizes[1] for layer in found.layers] == [site.group_size for site in alone.sites]
    assert "3 plans" in str(found)


def test_plans_of_different_layers_have_no_range() -> None:
    with pytest.raises(ig.IdealGroupsError, match="two plans at least"):
        ig.repeat(networks.plain(), lambda seed: synthetic((4, 3, 16, 16)), times=1)


def test_the_table_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = str(ig.repeat(networks.plain(width=16, depth=2), lambda seed: synthetic((4, 3, 8, 8), seed=seed), 2))
    assert max(map(len, shown.splitlines())) <= 80


def test_equal_ends_of_a_range_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    found = ig.repeat(networks.plain(), lambda seed: synthetic((4, 3, 16, 16), seed=seed), times=2)
    same = Repeats(plans=(found.plans[0],) * 2)
    trend = signed(found.plans[0].trend_after)
    size = median(site.group_size for site in found.plans[0].sites)
    assert f"2 plans: the median group size is {size:g}, the trend {trend}; " in str(same)
    other = replace(found.plans[0], after=None)  # not measured
    assert "the trend –; " in str(Repeats(plans=(other, other)))
