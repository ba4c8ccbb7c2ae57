"""The study's federated trainings: who the clients are, and what a round does to the server's weights."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import idealgroups as ig
from experiments.study.clients import CLIENTS, by_family, by_label
from experiments.study.config import Images, Optimizer, Run
from experiments.study.data import Dataset, load
from experiments.study.engines import LocalEngine
from experiments.study.execute import check, run_study
from experiments.study.federated import A_ROUND, FEDERATED, federated_rounds
from experiments.study.store import Store
from experiments.study.train import TrainJob, train
from study_cases import ARM, TINY

DIGITS = Images("digits-clients", 0, 1000, 100, 100)
STUDY = dataclasses.replace(
    TINY,
    data=dataclasses.replace(TINY.data, names=("digits-clients",), train=1000),
    strategies=("fixed-32", "layer", "batch"),
    batch_size=4,
    sgd=Optimizer(),
    fedavg=Optimizer((0.01,)),
)
RUN = Run(dataclasses.replace(ARM, images=DIGITS, optimizer=FEDERATED, batch_size=4, epochs=2), "layer", 0.1, 0)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(DIGITS)


def loss_of(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(network(x), y)


def test_by_label_every_image_has_a_client_and_clients_differ() -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 500))
    clients = by_label(labels, np.random.default_rng(0))
    table = np.zeros((CLIENTS, 10))
    np.add.at(table, (clients, labels), 1)
    assert table.sum() == len(labels)
    assert (table.sum(1) > 0).sum() > CLIENTS * 0.9
    largest = (table.max(1) / table.sum(1).clip(1))[table.sum(1) >= 20]
    assert np.median(largest) > 0.3  # a tenth if they were alike
    assert np.array_equal(clients, by_label(labels, np.random.default_rng(0)))


def test_by_family_nobody_shares_a_family() -> None:
    families = np.random.default_rng(0).permutation(np.repeat(np.arange(7, 207), 3))
    clients = by_family(families)
    assert set(clients) == set(range(CLIENTS))
    assert all(len(set(clients[families == family])) == 1 for family in set(families))
    assert {len(set(families[clients == client])) for client in set(clients)} == {4}
    with pytest.raises(ig.IdealGroupsError, match="there are 20 families, too few for 50 clients"):
        by_family(families[families < 27])


def test_the_families_of_a_file_decide(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.integers(0, 255, (count, 8, 8)).astype(np.uint8) for part, count in PARTS.items()}
    arrays |= {f"y_{part}": rng.integers(0, 4, count).astype(np.uint8) for part, count in PARTS.items()}
    arrays["x_train"][:, 0, 0] = families = np.arange(600) % 60  # the family is written into the image
    np.savez(tmp_path / "fonts.npz", **arrays, family_train=families)
    data = load(Images("fonts-clients", 0, 500, 100, 0), tmp_path)
    assert data.client is not None
    pixel = data.x_train[:, 0, 0, 0]
    assert all(len(set(data.client[pixel == value].tolist())) == 1 for value in pixel.unique())
    assert len(data.client) == 500


PARTS = {"train": 600, "test": 40}


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


def by_hand(network: nn.Module, data: Dataset, order: Sequence[int], rate: float) -> dict[str, torch.Tensor]:
    """What one client sends: SGD with momentum on batches of four."""
    model = copy.deepcopy(network)
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    for start in range(0, len(order) // 4 * 4, 4):
        rows = list(order[start : start + 4])
        optimizer.zero_grad()
        loss_of(model, data.x_train[rows], data.y_train[rows]).backward()
        optimizer.step()
    return model.state_dict()


def test_a_round_is_the_mean_of_what_its_clients_make_of_the_servers_weights(digits: Dataset) -> None:
    pytest.importorskip("flwr")
    client = torch.full((1000,), 1)
    client[:8], client[8:10] = 0, 2  # two clients with 8 and 990 images, and one with less than a batch
    data = dataclasses.replace(digits, client=client)
    network = small()
    draw = torch.Generator().manual_seed(0)
    first = torch.randperm(2, generator=draw).tolist()
    sent, counts = [], []
    for chosen in first:
        rows = (client == chosen).nonzero()[:, 0]
        order = rows[torch.randperm(len(rows), generator=draw)].tolist()
        sent.append(by_hand(network, data, order, 0.1))
        counts.append(len(order))
    epoch = next(federated_rounds(network, data, RUN, loss_of))
    assert epoch.steps == 2 + 247
    for name, tensor in network.state_dict().items():
        wanted = sum(count * one[name] for count, one in zip(counts, sent, strict=True)) / sum(counts)
        torch.testing.assert_close(tensor, wanted, rtol=1e-4, atol=1e-5)


def test_the_rate_falls_from_round_to_round_and_only_ten_take_part(digits: Dataset) -> None:
    pytest.importorskip("flwr")
    data = dataclasses.replace(digits, client=torch.arange(1000) % 100)
    moved, network, previous = [], small(), small()
    for epoch in federated_rounds(network, data, dataclasses.replace(RUN, learning_rate=1e-4), loss_of):
        steps = zip(network.parameters(), previous.parameters(), strict=True)
        moved.append(sum(float((now - before).detach().abs().sum()) for now, before in steps))
        previous = copy.deepcopy(network)
        assert epoch.steps == A_ROUND * 2
    assert moved[1] == pytest.approx(moved[0] / 2, rel=0.3)  # a cosine over two rounds


@pytest.mark.filterwarnings("ignore")  # Flower's own
def test_a_study_trains_its_clients_and_can_be_repeated(tmp_path: Path) -> None:
    pytest.importorskip("flwr")
    study = dataclasses.replace(STUDY, epochs=2)
    store = Store(tmp_path)
    run_study(study, store, LocalEngine(1))
    results = {result.run: result.record["test_loss"] for result in store.results()}
    assert {run.strategy for run in results} == {"fixed-32", "layer", "batch"}
    assert all(loss < 2.3 for loss in results.values())  # the logarithm of ten
    run = next(run for run in results if run.strategy == "batch")
    again = train(TrainJob((run,), None), load(run.arm.images))
    assert again.test_loss == pytest.approx(results[run], rel=1e-5)  # the store rounds


def test_what_does_not_go_together_is_said() -> None:
    plain = dataclasses.replace(STUDY, data=dataclasses.replace(STUDY.data, names=("digits",)))
    with pytest.raises(ig.IdealGroupsError, match="digits does not go with fedavg; use fedavg with NAME-clients"):
        check(plain)
    with pytest.raises(ig.IdealGroupsError, match="digits-clients does not go with sgd"):
        check(dataclasses.replace(STUDY, sgd=Optimizer((0.1,)), fedavg=Optimizer()))


def test_clients_without_a_batch_are_said(digits: Dataset) -> None:
    pytest.importorskip("flwr")
    large = dataclasses.replace(RUN, arm=dataclasses.replace(RUN.arm, batch_size=500))
    with pytest.raises(ig.IdealGroupsError, match="no client has 500 images; lower batch_size"):
        next(federated_rounds(small(), digits, large, loss_of))
    with pytest.raises(ig.IdealGroupsError, match="needs images of clients"):
        next(federated_rounds(small(), dataclasses.replace(digits, client=None), RUN, loss_of))


def test_without_flower_it_is_named(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr.common", None)
    with pytest.raises(ig.IdealGroupsError, match="federated training needs Flower; pip install flwr"):
        next(federated_rounds(small(), digits, RUN, loss_of))
