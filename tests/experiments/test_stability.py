"""How much plans move, from records made by hand; and the exhaustive search on a network small enough to try it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from experiments import repeats, search, stability
from experiments.stability import Case
from idealgroups.planner import Survey


def plan_of(case: Case, sizes: list[int]) -> dict[str, Any]:
    return {"case": vars(case), "trend": -0.5, "one": 8, "sites": [(64, size) for size in sizes]}


def test_the_table_says_how_far_plans_are_from_their_median() -> None:
    records = [plan_of(Case("unet", 64, seed=seed), sizes) for seed, sizes in enumerate([[2, 8], [2, 8], [8, 8]])]
    (row,) = [line for line in stability.table(records).splitlines() if line.startswith("| unet")]
    assert row == "| unet | 64 | isometric | 3 | 5 to 8 | 4.0 to 8.0 | −0.50 to −0.50 | 83 % |"


def drawn(case: Case, k: int, sizes: list[int]) -> dict[str, Any]:
    draw = repeats.Draw(case, case.seed + 10 * k, case.seed + 10 * k)
    return {"draw": {"case": vars(case), "inputs": draw.inputs, "projection": draw.projection}} | {
        "channels": [64] * len(sizes),
        "sizes": sizes,
    }


def test_the_median_of_several_plans_drops_the_one_that_is_far() -> None:
    records = []
    for seed in (0, 1, 2):
        case = Case("unet", 64, seed=seed)
        strange = [[32, 32]] if seed == 0 else [[4, 4]]
        records += [drawn(case, k, sizes) for k, sizes in enumerate(strange + [[4, 4]] * 2)]
    rows = repeats.medians(records).splitlines()
    assert "| unet | 3 | 1 | 4 to 32 | 4.0 to 32.0 | 67% |" in rows
    assert "| unet | 3 | 3 | 4 to 4 | 4.0 to 4.0 | 100% |" in rows


def test_a_source_of_chance_is_looked_at_alone() -> None:
    base = Case("unet", 64)
    records = [
        {"draw": {"case": vars(base), "inputs": seed, "projection": 0}, "channels": [64], "sizes": [2 if seed else 32]}
        for seed in range(repeats.SEEDS)
    ]
    (row,) = [line for line in repeats.sources(records).splitlines() if line.startswith("| unet")]
    assert row.startswith("| unet | inputs | 5 | 80% |")


def test_every_case_has_its_repeats_once() -> None:
    found = repeats.draws("unet")
    assert len(set(found)) == len(found)
    assert sum(draw.inputs == draw.projection and draw.case == Case("unet", 64, 2) for draw in found) >= repeats.TIMES


@pytest.mark.filterwarnings("ignore")
def test_an_exhaustive_search_finds_the_largest_budget_that_keeps_the_limit() -> None:
    torch.manual_seed(0)
    blocks = [m for _ in range(4) for m in (nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())]
    net = nn.Sequential(nn.Conv2d(3, 16, 1), *blocks, nn.Flatten(), nn.Linear(16 * 64, 10))
    with Survey(net, torch.randn(4, 3, 8, 8)) as survey:
        plan = survey.plan()
        trend, groups, _ = search.exhaustive(survey)
    assert plan.lowest_trend is not None
    assert trend >= plan.lowest_trend
    assert sum(groups.values()) >= sum(plan.num_groups.values())
