"""Which batches choose the numbers of groups, and which fit γ, β and eps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from idealgroups.calibration.calibrate import fit_candidates
from idealgroups.calibration.engine import SAMPLES_TO_CHOOSE

COUNTS: list[int] = []
"""Samples of every forward pass of the trained network and its copies."""


class Counted(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        COUNTS.append(len(x))
        return super().forward(x)


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    trained = Counted(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    trained(torch.randn(64, 3, 9, 9))
    COUNTS.clear()
    return nn.Sequential(trained[0], nn.GroupNorm(1, 8), nn.ReLU()).eval(), trained.eval()


def batches(count: int, scale: float = 1.0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [scale * torch.randn(16, 3, 9, 9, generator=draw) for _ in range(count)]


CHOOSING = SAMPLES_TO_CHOOSE // 16


@pytest.mark.parametrize(
    ("count", "passes"),
    [
        (CHOOSING, 2 * CHOOSING),  # all choose, all fit
        (CHOOSING + 1, 2 * CHOOSING + 1),  # one more batch is too few to fit on
        (2 * CHOOSING, 2 * CHOOSING),  # half chooses, half fits: every batch runs once
        (3 * CHOOSING, 3 * CHOOSING),
    ],
)
def test_each_batch_runs_once_where_enough_come_after_those_that_choose(count: int, passes: int) -> None:
    model, trained = networks()
    fit_candidates(model, trained, batches(count), {"1": (1, 2, 4, 8)})
    assert len(COUNTS) == passes


def test_gamma_and_beta_are_those_of_the_batches_that_did_not_choose() -> None:
    """The first batches are a hundred times as large: they would dominate any sum that they are in."""
    model, trained = networks()
    chose, fitted = batches(CHOOSING, 100.0), batches(CHOOSING)
    (found,) = fit_candidates(model, trained, chose + fitted, {"1": (1, 2)}).layers.values()
    (alone,) = fit_candidates(model, trained, fitted, {"1": (found.num_groups,)}).layers.values()
    assert (found.fit.eps, found.fit.residual) == pytest.approx((alone.fit.eps, alone.fit.residual), rel=1e-9)
    assert found.fit.gamma == pytest.approx(alone.fit.gamma, rel=1e-9)


def test_all_batches_fit_where_nothing_is_chosen() -> None:
    model, trained = networks()
    large, small = batches(CHOOSING, 100.0), batches(CHOOSING)
    (found,) = fit_candidates(model, trained, large + small, {"1": (2,)}).layers.values()
    (alone,) = fit_candidates(model, trained, small, {"1": (2,)}).layers.values()
    assert found.fit.eps > 100 * alone.fit.eps
