"""Private training of a study: the ε that is stated is the ε that is spent, and a run can be repeated."""

from __future__ import annotations

import dataclasses

import pytest

import idealgroups as ig
from experiments.study.config import Arm, Images, Run
from experiments.study.data import load
from experiments.study.planned import PlanJob, plan_strategies
from experiments.study.private import PRIVATE, optimizer_name
from experiments.study.train import Outcome, TrainJob, train

IMAGES = Images("digits", 0, 512, 100, 100)
RUN = Run(Arm("mlp3", IMAGES, PRIVATE, 0.0, 64, 4, False), "layer", 0.5, 0)

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")


def trained(run: Run) -> Outcome:
    data = load(IMAGES)
    (planned,) = plan_strategies(PlanJob("mlp3", IMAGES, run.seed, 64, (run.strategy,), PRIVATE), data)
    return train(TrainJob((run,), planned.plan), data)


@pytest.mark.slow
def test_a_private_run_spends_its_epsilon_learns_and_can_be_repeated() -> None:
    first, second = trained(RUN), trained(RUN)
    assert first.privacy is not None
    assert 0.95 * 8 < first.privacy["epsilon"] <= 8
    assert first.privacy["noise"] > 0
    assert first.steps == 4 * 512 // 64
    assert first.test_accuracy > 0.2  # chance is 0.1
    assert (first.val_losses, first.test_loss) == (second.val_losses, second.test_loss)


@pytest.mark.slow
def test_another_epsilon_is_part_of_the_arm_and_is_what_is_spent() -> None:
    arm = dataclasses.replace(RUN.arm, optimizer=optimizer_name(3), epochs=1)
    outcome = trained(dataclasses.replace(RUN, arm=arm))
    assert outcome.privacy is not None
    assert 0.9 * 3 < outcome.privacy["epsilon"] <= 3


@pytest.mark.slow
def test_batch_norm_is_refused_in_a_sentence() -> None:
    with pytest.raises(ig.IdealGroupsError, match="Opacus takes no batch norm"):
        train(TrainJob((dataclasses.replace(RUN, strategy="batch"),), None), load(IMAGES))


def test_a_private_study_is_planned_for_private_steps() -> None:
    data = load(IMAGES)
    for optimizer, planned_for in (("sgd", "sgd"), (PRIVATE, "dp-sgd"), (optimizer_name(3), "dp-sgd")):
        (planned,) = plan_strategies(PlanJob("mlp3", IMAGES, 0, 64, ("isometric",), optimizer), data)
        assert planned.plan is not None
        assert planned.plan["optimizer"] == planned_for
