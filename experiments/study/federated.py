"""Federated training with Flower, as the study's runs do it: FedAvg over clients that train a few steps a round.

The clients and FedAvg are Flower's, run one after the other in this process: its simulation engine would do the same in
processes of its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from idealgroups.errors import IdealGroupsError

from ..common.stepping import LossOf, eager_step
from ..common.training import Epoch, make_optimizer
from .config import Run
from .data import Dataset

FEDERATED = "fedavg"
"""The optimizer of a federated arm: its epochs are rounds."""

A_ROUND = 10
"""Clients that take part in a round, drawn anew for each."""


def federated_rounds(network: nn.Module, dataset: Dataset, run: Run, loss_of: LossOf) -> Iterator[Epoch]:
    """Train ``network`` in place; one :class:`Epoch` a round.

    In a round each client starts from the server's weights, batch norm's statistics among them, and goes once through
    its images, in batches of the run's size; what is left over is left out, and so are clients with less than a batch.
    The server takes the mean of what they send, by their numbers of images. The rate falls with a cosine over the
    rounds and is constant in each.

    Raises:
        IdealGroupsError: Flower is not installed, or the images belong to no clients.
    """
    try:
        from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
        from flwr.server.strategy import FedAvg

        from recipes.with_flower import get_weights, set_weights
    except ImportError:
        raise IdealGroupsError("federated training needs Flower; pip install flwr.") from None
    if dataset.client is None:
        raise IdealGroupsError("federated training needs images of clients; use NAME-clients.")
    size, generator = run.arm.batch_size, torch.Generator().manual_seed(run.seed)
    rows = [(dataset.client == one).nonzero()[:, 0].cpu() for one in sorted(set(dataset.client.tolist()))]
    rows = [one for one in rows if len(one) >= size]
    if not rows:
        raise IdealGroupsError(f"no client has {size} images; lower batch_size or raise data.train.")
    strategy, worker = FedAvg(fit_metrics_aggregation_fn=lambda metrics: {}), copy.deepcopy(network)
    for number in range(run.arm.epochs):
        rate = run.learning_rate * (1 + math.cos(math.pi * number / run.arm.epochs)) / 2
        start, losses = get_weights(network), list[Tensor]()
        results: list[Any] = []
        for chosen in torch.randperm(len(rows), generator=generator)[:A_ROUND].tolist():
            set_weights(worker, start)
            order = rows[chosen][torch.randperm(len(rows[chosen]), generator=generator)]
            batches = order[: len(order) // size * size].split(size)
            losses += _train(worker, dataset, batches, rate, run, loss_of)
            sent = ndarrays_to_parameters(get_weights(worker))
            results.append((None, FitRes(Status(Code.OK, ""), sent, len(order), {})))
        averaged, _ = strategy.aggregate_fit(number + 1, results, [])
        assert averaged is not None
        set_weights(network, parameters_to_ndarrays(averaged))
        yield Epoch(float(torch.stack(losses).mean()), len(losses))


def _train(
    network: nn.Module, dataset: Dataset, batches: tuple[Tensor, ...], rate: float, run: Run, loss_of: LossOf
) -> list[Tensor]:
    """One client's steps, with an optimizer of its own, and the loss of each."""
    optimizer = make_optimizer(network.train(), "sgd", rate, run.arm.weight_decay)
    step = eager_step(network, loss_of, optimizer)
    layout = torch.channels_last
    return [step(dataset.x_train[rows].contiguous(memory_format=layout), dataset.y_train[rows]) for rows in batches]
