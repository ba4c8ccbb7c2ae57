"""Several plans of one network, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from torch import nn

from . import verdict
from .errors import IdealGroupsError
from .extras import require
from .frames import comparison_rows, frame
from .markup import comparison_html
from .measuring.loss import Loss
from .measuring.observation import Optimizer
from .planner import SHARED_PASSES, TYPICAL_PASSES, Survey
from .progress import steps
from .results import Plan
from .tables import comparison_text, trends_of
from .theory.strategies import BASELINES, Strategy, parse_strategy


@dataclass(frozen=True)
class Comparison(Sequence[Plan]):
    """One plan a strategy, all measured on the same copy of a network. ``print`` it for a table; it is a sequence.

    Raises:
        IdealGroupsError: there is no plan in it.
    """

    plans: tuple[Plan, ...]

    def __post_init__(self) -> None:
        if not self.plans:
            raise IdealGroupsError("a comparison needs at least one strategy.")

    @property
    def best(self) -> Plan:
        """The plan to take."""
        return self.plans[verdict.chosen([trends_of(plan) for plan in self.plans])]

    def __len__(self) -> int:
        return len(self.plans)

    def __iter__(self) -> Iterator[Plan]:
        return iter(self.plans)

    @overload
    def __getitem__(self, index: int) -> Plan: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Plan, ...]: ...
    def __getitem__(self, index: int | slice) -> Plan | tuple[Plan, ...]:
        return self.plans[index]

    def __str__(self) -> str:
        return comparison_text(self.plans)

    def _repr_html_(self) -> str:
        return comparison_html(self.plans)

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the trend of every strategy beside its group sizes over depth.

        Args:
            path: write the figure to this PNG, SVG or PDF file.

        Returns:
            The ``matplotlib.figure.Figure``; a notebook shows it.

        Raises:
            IdealGroupsError: matplotlib is not installed, or the file cannot be written.
        """
        require("matplotlib", "plots", "'idealgroups[plot]'")
        from .pictures.figures import comparison_figure
        from .pictures.style import finish

        return finish(comparison_figure(self.plans), path)

    def to_frame(self) -> Any:
        """Return a ``pandas.DataFrame`` with one row for every strategy.

        Raises:
            IdealGroupsError: pandas is not installed.
        """
        return frame(comparison_rows(self.plans))


def compare(
    model: nn.Module,
    example_inputs: Any = None,
    strategies: Sequence[str | Strategy] = ("isometric", "uniform", "block", *BASELINES),
    *,
    input_size: Sequence[int] | None = None,
    optimizer: Optimizer = "sgd",
    loss: Loss | None = None,
    seed: int = 0,
    name: str | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Make one plan a strategy, all measured on the same copy of ``model`` with the same inputs.

    Arguments and errors as in :func:`idealgroups.plan`.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    >>> [made.num_groups["1"] for made in compare(net, torch.randn(4, 3, 8, 8), ["fixed-32", "layer"])]
    [16, 1]
    """
    chosen = [parse_strategy(strategy) for strategy in strategies]
    total = SHARED_PASSES + sum(1 if strategy.closed else TYPICAL_PASSES - SHARED_PASSES for strategy in chosen)
    with (
        steps(progress, "comparing", total=total) as advance,
        Survey(
            model, example_inputs, input_size=input_size, optimizer=optimizer, loss=loss, seed=seed, name=name
        ) as survey,
    ):
        return Comparison(tuple(survey.plan(strategy, advance=advance) for strategy in chosen))
