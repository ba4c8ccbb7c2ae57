"""The relative gradient of every weight layer: the check that a plan does what it says."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from torch import nn

from .conversion.matching import Patterns, fit
from .measuring.loss import Loss
from .measuring.observation import WeightGradient
from .measuring.observer import Observer
from .progress import steps
from .results import Plan
from .sandbox.calling import describe


@dataclass(frozen=True)
class Measurement:
    """u = ‖∂L/∂W‖_F / ‖W‖_F of every weight layer, in execution order. ``print`` it for a table.

    ``trend``: last minus first of the least-squares line of log u (0 is isometric from end to end; negative: early
    layers have the larger gradients). ``spread``: standard deviation of log u. ``silent``: weights that no
    gradient reached.
    """

    model: str
    input: str
    seed: int
    trend: float
    spread: float
    layers: tuple[WeightGradient, ...]
    silent: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        from .tables import as_text, measurement_table

        return as_text(*measurement_table([("u", self)]))


def measure(
    model: nn.Module,
    example_inputs: Any,
    *,
    plan: Plan | None = None,
    loss: Loss | None = None,
    seed: int = 0,
    name: str | None = None,
    progress: bool | None = None,
) -> Measurement:
    """Measure ``model`` as it is, or as it would be with ``plan``; the model is left exactly as it was.

    Batch norm is measured as in training. Arguments and errors as in :func:`idealgroups.plan`.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    >>> [layer.name for layer in measure(net, torch.randn(16, 8)).layers]
    ['0.weight', '2.weight']
    """
    groups = None
    if plan is not None:
        groups = fit(plan, model, Patterns()).groups
    with steps(progress, "measuring"), closing(Observer(model, example_inputs, loss, seed)) as observer:
        seen = observer.observe(groups)
    return Measurement(
        model=name or type(model).__name__,
        input=describe(example_inputs),
        seed=seed,
        trend=seen.trend,
        spread=seen.spread,
        layers=seen.gradients,
        silent=seen.silent,
    )
