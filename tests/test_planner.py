"""A model is surveyed once, for several plans and measurements."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import idealgroups as ig
import networks


def test_plans_of_one_survey_are_those_of_separate_calls() -> None:
    model, x = networks.plain(), torch.randn(4, 3, 12, 12)
    with ig.Survey(model, x) as survey:
        plans = [survey.plan(strategy) for strategy in ("isometric", "group-size-4", ig.Fixed(2))]
        assert survey.measure() == ig.measure(model, x)
        assert survey.measure(plans[0]) == ig.measure(model, x, plan=plans[0])
        assert survey.before == plans[0].before == plans[1].before
    assert plans[0] == ig.plan(model, x)
    assert plans[1].num_groups == ig.plan(model, x, strategy="group-size-4").num_groups
    assert plans[2].strategy == "fixed-2"


def test_a_model_without_norms_can_be_measured_but_not_planned() -> None:
    with ig.Survey(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), torch.randn(8, 4)) as survey:
        assert len(survey.measure().layers) == 2
        with pytest.raises(ig.IdealGroupsError, match="no normalization layer"):
            survey.plan()


def test_input_size_makes_the_inputs() -> None:
    model = networks.plain()
    plan = ig.plan(model, input_size=(4, 3, 12, 12))
    assert (plan.input, plan.output) == ("4x3x12x12", "4x5")
    assert plan == ig.plan(model, input_size=[4, 3, 12, 12])
    assert ig.measure(model, input_size=(4, 3, 12, 12), plan=plan).trend == pytest.approx(plan.trend_after, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give example_inputs, what the model takes, or input_size="),
        ({"example_inputs": torch.ones(2, 3, 8, 8), "input_size": (2, 3, 8, 8)}, "give example_inputs"),
        ({"input_size": (3,)}, "is no shape; give positive integers, batch first"),
        ({"input_size": (2, 3, 0, 8)}, "is no shape"),
        ({"input_size": "2x3x8x8"}, "is no shape"),
        ({"input_size": 8}, "is no shape"),
    ],
)
def test_inputs_that_are_missing_or_no_shape(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ig.IdealGroupsError, match=message):
        ig.plan(networks.plain(), **arguments)  # type: ignore[arg-type]


def test_a_plan_says_what_share_of_the_weights_was_measured() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8, bias=False))
            self.unused = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8, bias=False))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.used(x)
            return y

    share = ig.plan(Half(), torch.randn(16, 8)).measured_share
    assert share is not None
    assert 0.4 < share < 0.55


def test_a_plan_for_another_number_of_outputs_is_applied_with_a_warning() -> None:
    def network(outputs: int) -> nn.Module:
        return nn.Sequential(networks.plain()[:-1], nn.Linear(16, outputs))

    x = torch.randn(4, 3, 12, 12)
    plan = ig.plan(network(1000), x)
    with pytest.warns(UserWarning, match="was made for other weights") as caught:
        ig.apply(network(10), plan)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="was made for other weights"):
        ig.measure(network(10), x, plan=plan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan.apply(network(1000))


def test_patterns_may_be_generators() -> None:
    model, x = networks.plain(), torch.randn(4, 3, 12, 12)
    converted, plan = ig.convert(model, x, exclude=(name for name in ["0.1"]))
    assert "0.1" not in plan.num_groups
    assert type(converted.get_submodule("0.1")) is nn.BatchNorm2d
    assert type(converted.get_submodule("1.1")) is nn.GroupNorm


def test_a_model_that_uses_vmap_can_be_converted() -> None:
    class PerSample(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.Linear(16, 3)

        def one(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.norm(self.conv(x[None]))).mean((2, 3)))[0]  # type: ignore[no-any-return]

        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(self.one)(x)

    converted, plan = ig.convert(PerSample(), torch.randn(4, 3, 12, 12))
    assert converted.norm.num_groups == plan.num_groups["norm"]


def test_a_plan_that_is_about_nearly_nothing_comes_with_a_warning() -> None:
    class Mostly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
            self.large = nn.Linear(100, 100)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.small(x)
            return y

    with pytest.warns(UserWarning, match=r"gradients reach 0\.\d% of the weights of Mostly") as caught:
        plan = ig.plan(Mostly(), torch.randn(16, 4))
    assert caught[0].filename == __file__
    assert "measured: the gradients of 0 % of the network" in str(plan)


def test_a_converted_network_says_whether_samples_see_each_other() -> None:
    model, x = networks.plain(), torch.randn(4, 3, 12, 12)
    _, plan = ig.convert(model, x)
    assert plan.samples_coupled is False
    assert "samples: independent of one another" in str(plan)
    _, plan = ig.convert(model, x, exclude="0.1")
    assert plan.samples_coupled is True
    assert "one sample changes what the network computes for the others" in " ".join(str(plan).split())
    assert ig.coupled(model, x)


def test_a_plan_for_trained_weights_says_that_it_is_for_training_from_scratch() -> None:
    model, x = networks.plain(), torch.randn(4, 3, 12, 12)
    assert "trained weights" not in str(ig.plan(model, x))
    model(x)  # moves the running statistics
    plan = ig.plan(model, x)
    assert plan.trained
    assert "trained weights: this plan is for training from scratch" in " ".join(str(plan).split())
