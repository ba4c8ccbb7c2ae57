"""From runs to groups: the plan of every strategy for one network, data set and seed, with what planning costs."""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from idealgroups.errors import IdealGroupsError
from idealgroups.planner import Survey
from idealgroups.results import Plan
from idealgroups.synthetic import synthetic

from .config import Images
from .data import Dataset, examples
from .diffusion import add_noise
from .losses import loss_of
from .networks import build
from .private import is_private
from .variants import parse

PLAN_IMAGES = 64
"""Training images a plan is measured on, the first ones in the order of its seed."""

PLAN_PATCHES = 8
"""The same for patches of a volume and for tiles with boxes, which have as many positions as thirty images or more."""

TIMED_STEPS = 5


@dataclass(frozen=True)
class PlanJob:
    """Plans of several strategies for the network that ``seed`` initialises, for the steps of ``optimizer``."""

    network: str
    images: Images
    seed: int
    batch_size: int
    strategies: tuple[str, ...]
    optimizer: str = "sgd"


@dataclass(frozen=True)
class Planned:
    """What a strategy chose. ``plan`` is :meth:`Plan.to_dict`, None for batch norm; ``error`` says why there is none.

    ``step_seconds`` is one training step of the same network and batch size, timed beside the planning.
    """

    strategy: str
    plan: dict[str, Any] | None
    step_seconds: float
    error: str = ""

    @property
    def groups(self) -> tuple[int, ...] | None:
        """Number of groups of every site in execution order."""
        return None if self.plan is None else tuple(site["num_groups"] for site in self.plan["sites"])

    def summary(self) -> dict[str, Any]:
        """What a run's line keeps of the plan: sites as columns."""
        if self.plan is None:
            return {"groups": None, "step_seconds": self.step_seconds}
        sites = self.plan["sites"]
        return {
            "sites": [site["name"] for site in sites],
            "channels": [site["num_channels"] for site in sites],
            "groups": self.groups,
            **_measured(Plan.from_dict(self.plan)),
            "step_seconds": self.step_seconds,
        }


def _measured(plan: Plan) -> dict[str, float | None]:
    return {
        "budget": plan.budget,
        "trend_after": plan.trend_after,
        "spread_after": plan.spread_after,
        "seconds": plan.seconds,
    }


def initial_network(network: str, dataset: Dataset, seed: int) -> nn.Module:
    """The network with batch norm as ``seed`` initialises it; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(network, dataset.in_channels, dataset.num_classes, dataset.size)


def plan_strategies(job: PlanJob, dataset: Dataset) -> list[Planned]:
    """One :class:`Planned` for each strategy of the job; those that plan on the same inputs share one survey."""
    network = initial_network(job.network, dataset, job.seed)
    step_seconds = time_step(network, dataset, job.batch_size)
    by_source: dict[str, list[str]] = {}
    for strategy in job.strategies:
        if strategy != "batch":
            by_source.setdefault(parse(strategy).source, []).append(strategy)
    planned = [Planned("batch", None, step_seconds)] if "batch" in job.strategies else []
    for source, strategies in by_source.items():
        try:
            inputs = plan_inputs(source, dataset, job.seed)
            optimizer: Literal["sgd", "dp-sgd"] = "dp-sgd" if is_private(job.optimizer) else "sgd"
            with Survey(network, inputs, optimizer=optimizer, seed=job.seed, name=job.network) as surveyed:
                for strategy in strategies:
                    plan = surveyed.plan(parse(strategy).rule)
                    planned.append(Planned(strategy, plan.to_dict(), step_seconds))
        except IdealGroupsError as error:
            made = {one.strategy for one in planned}
            planned += [Planned(one, None, step_seconds, error=str(error)) for one in strategies if one not in made]
    return planned


def plan_inputs(source: str, dataset: Dataset, seed: int) -> Tensor:
    """Training images, or synthetic ones of the same shape."""
    generator = torch.Generator().manual_seed(seed)
    count = PLAN_PATCHES if dataset.x_train.dim() == 5 or dataset.has_boxes else PLAN_IMAGES
    chosen = torch.randperm(len(dataset.x_train), generator=generator)[:count]
    if source == "data":
        return examples(dataset, chosen, generator)[0]
    made = synthetic((len(chosen), *dataset.x_train.shape[1:]), "pink" if source == "pink" else "noise", seed)
    return add_noise(made, generator)[0] if dataset.predicts_noise else made


def time_step(network: nn.Module, dataset: Dataset, batch_size: int) -> float:
    """Median seconds of a training step (forward, backward, SGD update) on a copy of the network."""
    trained = copy.deepcopy(network)
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3, momentum=0.9)
    rows = torch.arange(min(batch_size, len(dataset.x_train)))
    x, y = examples(dataset, rows, torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(TIMED_STEPS + 1):
        started = time.perf_counter()
        optimizer.zero_grad()
        loss_of(trained(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
