"""Federated fine-tuning with Flower on clients that differ: what each way to convert a pretrained network makes of it.

The clients and FedAvg are Flower's, run one after the other in this process: its simulation engine would do the same in
processes of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flwr.client import NumPyClient
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.strategy import FedAvg
from torch import nn

from recipes.with_flower import Arrays, get_weights, set_weights

from .arms import SAMPLES, convert
from .data import Split, glyphs
from .networks import GLYPHS
from .training import batches, pretrained, score, train, train_frozen

ARMS = (
    "batch norm",
    "frozen",
    "naive: one",
    "opacus",
    "calibrated: one",
    "calibrated: faithful 0.001",
)
ROUNDS = (0, 1, 3, 6)
STEPS, BATCH, RATES = 16, 16, (0.002, 0.01, 0.05)
"""Of a client in one round: SGD with momentum 0.9, constant; every arm gets every rate."""


class Client(NumPyClient):
    """Trains a copy of the server's network on its own glyphs."""

    def __init__(self, model: nn.Module, data: Split, frozen: bool) -> None:
        self.model, self.data, self.frozen = copy.deepcopy(model), data, frozen

    def fit(self, parameters: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        """A few steps from the server's weights."""
        set_weights(self.model, parameters)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=config["rate"], momentum=0.9)
        data = batches(self.data, BATCH, STEPS, config["seed"], flips=False)
        if self.frozen:
            train_frozen(self.model, data, optimizer)
        else:
            train(self.model, data, optimizer, total=STEPS)
        return get_weights(self.model), len(self.data), {}


def federated(folder: Path, seed: int) -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """One record an arm and rate. Calibration sees glyphs of the pretraining only, as a server would."""
    task, clients = glyphs(folder)
    trained = pretrained("glyphs", GLYPHS, seed, task, folder / "pretrained")
    draw = torch.randperm(len(task.base), generator=torch.Generator().manual_seed(seed))
    pool = task.base.x[draw[:SAMPLES]]
    for rate in RATES:
        for arm in ARMS:
            yield {"arm": arm, "rate": rate}, partial(_tuned, arm, rate, trained, pool, clients, task.test, seed)


def _tuned(
    arm: str, rate: float, trained: nn.Module, pool: torch.Tensor, clients: list[Split], test: Split, seed: int
) -> dict[str, Any]:
    server = convert(arm, trained, pool, seed).model
    members = [Client(server, data, arm == "frozen") for data in clients]
    strategy = FedAvg(fit_metrics_aggregation_fn=lambda metrics: {})
    scores = {0: score(server, test, 36)}
    for number in range(1, ROUNDS[-1] + 1):
        results: list[Any] = []
        for index, member in enumerate(members):
            config = {"rate": rate, "seed": seed + 1000 * number + index}
            arrays, samples, metrics = member.fit(get_weights(server), config)
            results.append((None, FitRes(Status(Code.OK, ""), ndarrays_to_parameters(arrays), samples, metrics)))
        averaged, _ = strategy.aggregate_fit(number, results, [])
        assert averaged is not None
        set_weights(server, parameters_to_ndarrays(averaged))
        if number in ROUNDS:
            scores[number] = score(server, test, 36)
    return {"scores": {str(number): round(value, 2) for number, value in scores.items()}}
