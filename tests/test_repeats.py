"""Several plans of one network: the range of each layer, by hand and of a real network."""

from __future__ import annotations

import pytest

import idealgroups as ig
import networks
from idealgroups.repeats import LayerRange
from idealgroups.synthetic import synthetic


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
