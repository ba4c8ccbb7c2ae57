from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from experiments.study.config import Images, Run
from experiments.study.data import Dataset, load
from experiments.study.engines import single_thread
from experiments.study.planned import PlanJob, initial_network, plan_inputs, plan_strategies
from experiments.study.train import Outcome, TrainJob, evaluate, train
from study_cases import ARM

DIGITS = Images("digits", 0, 320, 100, 100)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    single_thread()
    return load(DIGITS)


def job(digits: Dataset, strategy: str, rate: float, seed: int = 0, **arm: object) -> TrainJob:
    run = Run(dataclasses.replace(ARM, network="mlp3", images=DIGITS, **arm), strategy, rate, seed)
    (planned,) = plan_strategies(PlanJob("mlp3", DIGITS, seed, 32, (strategy,)), digits)
    return TrainJob((run,), planned.plan)


def without_times(outcome: Outcome) -> Outcome:
    return dataclasses.replace(outcome, seconds=0.0)


def test_the_same_run_gives_the_same_outcome_bit_by_bit_and_another_seed_another(digits: Dataset) -> None:
    first = train(job(digits, "fixed-32", 0.05), digits)
    torch.rand(7)  # the global generator must not matter
    assert without_times(train(job(digits, "fixed-32", 0.05), digits)) == without_times(first)
    assert train(job(digits, "fixed-32", 0.05, seed=1), digits).train_losses != first.train_losses


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("strategy", ["layer", "batch"])
def test_training_learns_the_digits(digits: Dataset, strategy: str, optimizer: str) -> None:
    rate = 0.05 if optimizer == "sgd" else 0.003
    outcome = train(job(digits, strategy, rate, epochs=4, optimizer=optimizer, flip=strategy == "batch"), digits)
    assert outcome.steps == 40
    assert not outcome.diverged
    assert len(outcome.val_losses) == 4
    assert outcome.val_losses[-1] == outcome.val_loss < math.log(10) / 2
    assert outcome.test_accuracy > 0.6


def test_a_diverged_run_is_a_result(digits: Dataset) -> None:
    outcome = train(job(digits, "batch", 1e30, epochs=3), digits)
    assert outcome.diverged
    assert math.isnan(outcome.val_loss)
    assert math.isnan(outcome.test_loss)
    assert outcome.steps < 30


def test_evaluation_is_the_mean_over_all_images_whatever_the_batches() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 2.0]]).repeat(400, 1)
    labels = torch.tensor([0, 0, 0]).repeat(400)
    loss, accuracy = evaluate(nn.Identity(), logits, labels)
    by_hand = (math.log(1 + math.exp(-2)) + math.log(2) + math.log(1 + math.exp(2))) / 3
    assert loss == pytest.approx(by_hand, rel=1e-6)
    assert accuracy == pytest.approx(2 / 3)  # a tie goes to the first class


def test_plans_are_of_the_network_that_is_trained(digits: Dataset) -> None:
    planned = {one.strategy: one for one in plan_strategies(PlanJob("plain9", DIGITS, 0, 32, STRATEGIES), digits)}
    assert set(planned) == set(STRATEGIES)
    assert planned["batch"].groups is None
    assert planned["fixed-32"].groups == (32,) * 9
    assert planned["channels-16"].groups == (2, 2, 2, 4, 4, 4, 8, 8, 8)
    for name in ("isometric", "isometric@noise", "hybrid", "block"):
        groups = planned[name].groups
        assert groups is not None
        assert len(groups) == 9
        assert planned[name].summary()["seconds"] > 0
    assert all(one.step_seconds > 0 and not one.error for one in planned.values())
    budgets = [planned[f"isometric{changed}"].summary()["budget"] for changed in ("@errors=4", "@delta=inf")]
    assert budgets == sorted(budgets)
    assert budgets[-1] == pytest.approx(math.log(2))


STRATEGIES = (
    "isometric",
    "isometric@noise",
    "isometric@delta=inf",
    "isometric@errors=4",
    "hybrid",
    "block",
    "fixed-32",
    "channels-16",
    "batch",
)


def test_what_a_plan_is_measured_on(digits: Dataset) -> None:
    real = plan_inputs("data", digits, seed=0)
    assert real.shape == (64, 1, 8, 8)
    assert all(any(torch.equal(one, image) for image in digits.x_train) for one in real[:4])
    assert plan_inputs("noise", digits, seed=0).shape == real.shape
    assert not torch.equal(plan_inputs("data", digits, seed=1), real)


def test_the_initial_network_depends_on_its_seed_alone(digits: Dataset) -> None:
    state = torch.get_rng_state()
    one, two = (initial_network("mlp3", digits, seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert torch.equal(torch.get_rng_state(), state)
