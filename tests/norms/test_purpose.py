"""Batch norms that stand for something else are pointed out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.norms import inventory

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))


def notes(model: nn.Module, x: Tensor, strategy: str = "isometric") -> dict[str, str]:
    return {site.name: site.note for site in ig.plan(model, x, strategy=strategy).sites}


def test_a_batch_norm_that_standardizes_the_features_is_pointed_out() -> None:
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    assert "standardizes the input features" in notes(model, ROWS, "block")["0"]
    told = notes(model, ROWS)
    assert "standardizes the input features" in told["0"]
    assert "standardizes" not in told["2"]


def test_one_without_affine_at_the_end_of_a_projector_is_pointed_out() -> None:
    model = nn.Sequential(
        nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 8), nn.BatchNorm1d(8, affine=False)
    )
    told = notes(model, ROWS)
    assert "ends a projector" in told["4"]
    assert "projector" not in told["1"]


def test_one_over_points_is_pointed_out() -> None:
    class Points(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n, self.b = nn.Linear(3, 32), nn.BatchNorm1d(32), nn.Linear(32, 2)

        def forward(self, x: Tensor) -> Tensor:
            rows = self.n(self.a(x.flatten(0, 1)))
            return self.b(rows.relu().unflatten(0, x.shape[:2]).mean(1))

    assert "no samples" in notes(Points(), torch.randn(4, 50, 3))["n"]


class SubBatchNorm(nn.Module):
    """SlowFast: statistics of parts of a batch in training, put together for evaluation."""

    def __init__(self, channels: int, splits: int = 2) -> None:
        super().__init__()
        self.splits = splits
        self.bn = nn.BatchNorm2d(channels, affine=False)
        self.split_bn = nn.BatchNorm2d(channels * splits, affine=False)
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            samples, channels, height, width = x.shape
            y = self.split_bn(x.reshape(samples // self.splits, channels * self.splits, height, width)).reshape(x.shape)
        else:
            y = self.bn(x)
        return y * self.weight[:, None, None] + self.bias[:, None, None]


def test_a_pair_for_training_and_evaluation_is_left_together() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), SubBatchNorm(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    found = inventory(model)
    assert set(found.odd) == {"1.bn", "1.split_bn"}
    new, plan = ig.convert(model, IMAGES)
    assert plan.num_groups.keys() == {"4"}
    assert isinstance(new[1].bn, nn.BatchNorm2d)
