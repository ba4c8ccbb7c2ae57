"""The cost of planning is counted from the outside."""

from __future__ import annotations

import torch
from torch import nn

import idealgroups as ig
from experiments.common.cost import pass_seconds, planning_cost
from idealgroups.planner import Survey


def test_the_cost_of_a_plan_is_that_of_the_first_one_made() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 5))
    x, passes = torch.randn(4, 3, 8, 8), []
    with Survey(net, x) as survey:
        survey.plan("isometric", advance=lambda: passes.append(1))
    with planning_cost() as cost:
        ig.plan(net, x, progress=False)
        ig.plan(net, x, strategy="uniform", progress=False)
    assert cost.passes == len(passes)
    assert cost.seconds > 0


def test_a_survey_that_is_kept_makes_more_plans_and_one_that_is_not_is_closed() -> None:
    net, x = (
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(576, 5)),
        torch.randn(4, 3, 8, 8),
    )
    with planning_cost(keep=True) as cost:
        plan = ig.plan(net, x, progress=False)
    assert cost.survey is not None
    assert cost.survey.plan() == plan
    assert 0 < cost.shared < cost.seconds
    with planning_cost() as cost:
        ig.plan(net, x, progress=False)
    assert cost.survey is None


def test_a_pass_takes_time() -> None:
    assert pass_seconds(nn.Linear(64, 64), torch.randn(256, 64), lambda y: y.square().mean()) > 0
