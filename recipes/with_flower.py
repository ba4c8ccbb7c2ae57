"""Flower: the server plans once, and sends the groups with every round's configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from flwr.client import NumPyClient
from torch import Tensor, nn

import idealgroups as ig

Arrays = list[Any]


def round_config(model: nn.Module) -> Callable[[int], dict[str, Any]]:
    """``on_fit_config_fn`` of a strategy such as FedAvg; ``model`` is the server's converted network."""
    groups = json.dumps(ig.groups(model))
    return lambda server_round: {"groups": groups, "round": server_round}


class Client(NumPyClient):
    """Trains the network that ``build`` makes on its own data."""

    def __init__(self, build: Callable[[], nn.Module], images: Tensor, labels: Tensor) -> None:
        self.model, self.images, self.labels = build(), images, labels

    def fit(self, parameters: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        """One step from the server's weights, in the server's groups."""
        ig.set_groups(self.model, json.loads(config["groups"]))
        set_weights(self.model, parameters)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        nn.functional.cross_entropy(self.model(self.images), self.labels).backward()
        optimizer.step()
        return get_weights(self.model), len(self.images), {}


def get_weights(model: nn.Module) -> Arrays:
    """The weights in the order of the ``state_dict``, as Flower sends them."""
    return [tensor.detach().cpu().numpy() for tensor in model.state_dict().values()]


def set_weights(model: nn.Module, arrays: Arrays) -> None:
    """The inverse of :func:`get_weights`."""
    names = model.state_dict().keys()
    model.load_state_dict({name: torch.as_tensor(array) for name, array in zip(names, arrays, strict=True)})
