"""The claims of docs/evidence.md, held against the committed measurements of the first rule; and today's line."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from experiments.common.first_plans import FirstPlan, read_first_plan
from idealgroups.cli.networks import load_model
from idealgroups.planner import Survey
from idealgroups.synthetic import synthetic

RESULTS = Path(__file__).parents[2] / "experiments" / "initialization.jsonl"
RESNET50 = "torchvision:resnet50"
NETWORKS = ("torchvision:resnet18", RESNET50, "torchvision:densenet121", "torchvision:mobilenet_v2", "timm:resnetv2_50")
IN_FRONT_OF_THE_POOL = {
    "torchvision:resnet18": "layer4.1.bn2",
    RESNET50: "layer4.2.bn3",
    "torchvision:densenet121": "features.norm5",
    "torchvision:mobilenet_v2": "features.18.1",
    "timm:resnetv2_50": "norm",
}


def records() -> list[tuple[dict[str, Any], FirstPlan]]:
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return [(line["case"], read_first_plan(line["plan"])) for line in lines if line["case"]["strategy"] == "isometric"]


def width(plan: FirstPlan) -> float:
    return median(site.group_size for site in plan.sites)


def test_data_the_records_hold_the_group_size_of_the_imagenet_search_for_resnet50() -> None:
    chosen = {(c["data"], c["px"], c["seed"]): plan for c, plan in records() if c["model"] == RESNET50}
    for data in ("pink", "noise"):
        for px in (128, 224):
            for seed in range(5):
                plan = chosen[data, px, seed]
                assert 8 <= width(plan) <= 32
                assert abs(plan.trend_after) <= 0.3


def test_data_the_records_of_five_seeds_agree_and_have_no_instance_norm_in_front_of_a_pool() -> None:
    widths = defaultdict(dict)
    for case, plan in records():
        if case["data"] == "pink" and case["px"] == 128:
            widths[case["model"]][case["seed"]] = width(plan)
            last = next(site for site in plan.sites if site.name == IN_FRONT_OF_THE_POOL[case["model"]])
            assert last.group_size > 1
    assert set(widths) == set(NETWORKS)
    for by_seed in widths.values():
        assert sorted(by_seed) == list(range(5))
        assert max(by_seed.values()) <= 2 * min(by_seed.values())


@pytest.mark.slow
def test_resnet50_crosses_zero_where_imagenet_training_found_its_width() -> None:
    """Group sizes of 8 and 16 had the least error there (Wu & He 2018, Table 3); nothing here knows of them."""
    pytest.importorskip("torchvision")
    network = Survey(load_model(RESNET50, 0).model, synthetic((2, 3, 128, 128), "pink", 0), name=RESNET50)
    trends = {size: network.plan(f"group-size-{size}").trend_after for size in (4, 8, 16, 32)}
    assert trends[8] < 0 < trends[16] + 0.2
    assert list(trends.values()) == sorted(trends.values())
    plan = network.plan("isometric")
    assert 4 <= width(plan) <= 16
