"""Private training by Opacus, as the study's runs do it: one ε, one δ, one clipping norm for all of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from idealgroups.errors import IdealGroupsError

from .config import EPSILON, Run

PRIVATE, OTHER = "dp-sgd", "dp-sgd at ε = "
"""The optimizer of a private arm, with the ε of most of them and with another."""

DELTA, CLIP = 1e-5, 1.0
"""The privacy of one training beside its ε, and the norm to which the gradient of every sample is clipped."""


@dataclass(frozen=True)
class Private:
    """What Opacus made of a network, its optimizer and its data; ``loader`` draws Poisson batches."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    loader: Any
    engine: Any
    noise: float

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass."""
        return len(self.loader)

    def spent(self) -> dict[str, float]:
        """ε by Opacus's accountant for the steps that were made, δ, and the noise multiplier."""
        return {"epsilon": float(self.engine.get_epsilon(DELTA)), "delta": DELTA, "noise": self.noise}


def optimizer_name(epsilon: float) -> str:
    """What an arm calls private training with this ε.

    >>> optimizer_name(8), optimizer_name(3)
    ('dp-sgd', 'dp-sgd at ε = 3')
    """
    return PRIVATE if epsilon == EPSILON else f"{OTHER}{epsilon:g}"


def is_private(optimizer: str) -> bool:
    """Whether this is the name of a private arm's optimizer."""
    return optimizer == PRIVATE or optimizer.startswith(OTHER)


def epsilon_of(optimizer: str) -> float:
    """The inverse of :func:`optimizer_name`.

    >>> epsilon_of("dp-sgd"), epsilon_of("dp-sgd at ε = 3")
    (8.0, 3.0)
    """
    return EPSILON if optimizer == PRIVATE else float(optimizer.removeprefix(OTHER))


def make_private(network: nn.Module, run: Run, x: Tensor, y: Tensor) -> Private:
    """Give ``network`` to Opacus for a training of the run's epochs; batches and noise are drawn by the run's seed.

    Raises:
        IdealGroupsError: Opacus is not installed, or the network has batch norm.
    """
    try:
        from opacus import PrivacyEngine
        from opacus.validators.errors import UnsupportedModuleError
    except ImportError:
        raise IdealGroupsError("private training needs Opacus; install idealgroups[dp].") from None
    data = DataLoader(
        TensorDataset(x, y),
        run.arm.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(run.seed),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the noise is not from a secure generator
        engine = PrivacyEngine(accountant="rdp")  # the default one takes longer than a small training
        try:
            private, optimizer, loader = engine.make_private_with_epsilon(
                module=network.train(),
                optimizer=torch.optim.SGD(network.parameters(), run.learning_rate, weight_decay=run.arm.weight_decay),
                data_loader=data,
                target_epsilon=epsilon_of(run.arm.optimizer),
                target_delta=DELTA,
                epochs=run.arm.epochs,
                max_grad_norm=CLIP,
                noise_generator=torch.Generator(x.device).manual_seed(run.seed),
            )
        except UnsupportedModuleError:
            raise IdealGroupsError("Opacus takes no batch norm; leave batch out of a private study.") from None
    return Private(private, optimizer, loader, engine, float(optimizer.noise_multiplier))
