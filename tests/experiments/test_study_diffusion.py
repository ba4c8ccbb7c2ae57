"""The study's task of predicting noise, and its tables where nothing is classified."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import idealgroups as ig
from experiments.study.analysis import analyse
from experiments.study.config import Images, Optimizer, Run
from experiments.study.data import Dataset, examples, load
from experiments.study.diffusion import DiffusionUNet, TimedBlock, add_noise, signal_share, time_embedding
from experiments.study.execute import check
from experiments.study.losses import loss_of
from experiments.study.planned import PlanJob, plan_inputs, plan_strategies
from experiments.study.store import Result, Store
from experiments.study.tables import all_tables
from experiments.study.train import TrainJob, evaluate, train
from study_cases import ARM, TINY, record

NOISE = Images("digits-noise", 8, 64, 16, 20)
NOISE_ARM = dataclasses.replace(ARM, network="diffusion-unet", images=NOISE, optimizer="adamw", batch_size=16)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_cosine_schedule_at_a_time_by_hand() -> None:
    half = math.cos(0.508 / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    shares = signal_share(torch.tensor([0.0, 0.5, 1.0]))
    assert torch.allclose(shares, torch.tensor([1.0, half, 0.0]), atol=1e-6)


def test_a_noised_image_is_the_image_and_its_noise_in_the_shares_of_its_time() -> None:
    images = torch.randn(6, 3, 4, 4, generator=generator(1))
    inputs, noise = add_noise(images, generator())
    assert inputs.shape == (6, 4, 4, 4)
    t = inputs[:, -1:]
    assert torch.equal(t, t[:, :, :1, :1].expand(-1, -1, 4, 4))
    assert len(t[:, 0, 0, 0].unique()) == 6
    share = signal_share(t)
    assert torch.allclose(inputs[:, :-1], share.sqrt() * images + (1 - share).sqrt() * noise, atol=1e-6)
    assert torch.equal(add_noise(images, generator())[0], inputs)
    assert not torch.equal(add_noise(images, generator(1))[0], inputs)


def test_images_of_unit_variance_stay_so_at_every_time() -> None:
    inputs, noise = add_noise(torch.randn(400, 1, 16, 16, generator=generator(1)), generator())
    assert inputs[:, :-1].var((1, 2, 3)).mean().item() == pytest.approx(1, abs=0.02)
    assert noise.var().item() == pytest.approx(1, abs=0.02)


def test_the_time_embedding_by_hand() -> None:
    embedded = time_embedding(torch.tensor([0.0, 0.002]), torch.tensor([1.0, 0.5]))
    expected = [[0, 0, 1, 1], [math.sin(2), math.sin(1), math.cos(2), math.cos(1)]]
    assert torch.allclose(embedded, torch.tensor(expected), atol=1e-6)


def test_every_block_of_the_network_sees_the_time() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DiffusionUNet(2, 1).eval()
    early = torch.cat([torch.randn(1, 1, 8, 8, generator=generator()), torch.full((1, 1, 8, 8), 0.1)], 1)
    late = torch.cat([early[:, :1], torch.full((1, 1, 8, 8), 0.9)], 1)
    blocks = [module for module in network.modules() if isinstance(module, TimedBlock)]
    assert len(blocks) == 6
    for kept in blocks:
        for block in blocks:
            torch.nn.init.constant_(block.time.weight, 1.0 if block is kept else 0.0)
        assert not torch.allclose(network(early), network(late))
    with pytest.raises(ig.IdealGroupsError, match="use it with NAME-noise"):
        DiffusionUNet(1, 1)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(NOISE)


def test_training_images_stay_clean_and_the_others_are_noised_once(digits: Dataset) -> None:
    clean = load(dataclasses.replace(NOISE, name="digits"))
    assert torch.equal(digits.x_train, clean.x_train)
    assert digits.x_val.shape == (16, 2, 8, 8)
    assert digits.y_test.shape == (20, 1, 8, 8)
    assert (digits.in_channels, digits.num_classes, digits.size) == (2, 1, 8)
    share = signal_share(digits.x_val[:, -1:])
    recovered = digits.x_val[:, :-1] - (1 - share).sqrt() * digits.y_val
    assert torch.allclose(recovered, share.sqrt() * clean.x_val, atol=1e-5)
    load.cache_clear()
    assert torch.equal(load(NOISE).y_val, digits.y_val)
    assert not torch.equal(digits.y_val, digits.y_test[:16])


def test_a_batch_is_noised_anew_and_plans_see_noised_inputs(digits: Dataset) -> None:
    rows, drawn = torch.tensor([3, 5]), generator()
    first, second = examples(digits, rows, drawn), examples(digits, rows, drawn)
    assert first[0].shape == (2, 2, 8, 8)
    assert not torch.equal(first[1], second[1])
    for source in ("data", "pink"):
        inputs = plan_inputs(source, digits, seed=0)
        assert inputs.shape == (64, 2, 8, 8)
        assert torch.equal(plan_inputs(source, digits, seed=0), inputs)
        assert len(inputs[:, -1, 0, 0].unique()) > 60


def test_the_loss_of_floats_is_the_squared_error_and_has_no_accuracy() -> None:
    outputs, y = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])
    assert loss_of(outputs, y).item() == 2.5
    assert loss_of(outputs, y, "sum").item() == 5
    loss, accuracy = evaluate(torch.nn.Identity(), outputs.repeat(700, 1), y.repeat(700, 1))
    assert loss == 2.5
    assert math.isnan(accuracy)


def test_a_run_learns_the_noise_and_can_be_repeated(digits: Dataset) -> None:
    arm = dataclasses.replace(NOISE_ARM, epochs=2)
    first, second = (train(TrainJob((Run(arm, "batch", 0.003, 0),), None), digits) for _ in range(2))
    assert first.steps == 8
    assert first.train_losses == second.train_losses
    assert first.test_loss == second.test_loss
    assert first.train_losses[-1] < first.train_losses[0]
    assert math.isnan(first.test_accuracy)


@pytest.mark.slow
def test_the_network_is_planned_with_a_number_for_every_norm(digits: Dataset) -> None:
    for planned in plan_strategies(PlanJob("diffusion-unet", NOISE, 0, 16, ("gcd-32", "isometric"), "adamw"), digits):
        assert planned.groups is not None
        assert len(planned.groups) == 13
        assert planned.strategy == "isometric" or planned.groups == (32,) * 13


def test_a_report_has_no_error_where_nothing_is_classified(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for strategy, loss in (("isometric", 0.4), ("fixed-32", 0.5), ("layer", math.inf)):
        line = record(strategy, 0.1, 0, loss, arm=NOISE_ARM)
        store.append([{**line, "test_accuracy": math.nan}])
    results = {result.run.strategy: result for result in store.results()}
    assert math.isnan(results["isometric"].test_accuracy)
    assert results["layer"].test_accuracy == 0  # a run that diverged
    tables = all_tables(analyse(results.values()))
    (own,) = (table for table in tables if table.title == str(NOISE_ARM))
    errors = [row[own.header.index("test error %")] for row in own.rows]
    assert errors == ["–", "–"]
    assert not any("nan" in cell.split() for table in tables for row in table.rows for cell in row)


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        ("diffusion-unet", "digits", "use it with NAME-noise"),
        ("mlp3", "digits-noise", r"outputs \(1,\) for one image, which do not fit digits-noise"),
        ("plain9", "digits-scenes", "which do not fit digits-scenes; use unet"),
    ],
)
def test_networks_that_do_not_fit_the_task_are_refused(network: str, name: str, message: str) -> None:
    data = dataclasses.replace(TINY.data, names=(name,))
    with pytest.raises(ig.IdealGroupsError, match=message):
        check(dataclasses.replace(TINY, networks=(network,), data=data))


def test_noise_is_not_trained_privately() -> None:
    data = dataclasses.replace(TINY.data, names=("digits-noise",), size=8)
    private = dataclasses.replace(TINY.dp_sgd, learning_rates=(0.1,))
    study = dataclasses.replace(TINY, networks=("diffusion-unet",), data=data, sgd=Optimizer(), dp_sgd=private)
    with pytest.raises(ig.IdealGroupsError, match="digits-noise cannot be trained with DP-SGD"):
        check(study)


def test_results_of_before_keep_their_meaning() -> None:
    told = {**record("layer", 0.1, 0, 0.4), "test_accuracy": 0.75}
    assert Result.from_record(told).test_accuracy == 0.75
    assert np.isinf(Result.from_record(record("layer", 0.1, 0, math.inf)).test_loss)
