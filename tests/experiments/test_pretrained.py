"""The experiment on pretrained networks: arms and report, on a network that takes no time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("opacus")

from experiments.pretrained.arms import WIDTHS, convert, group_norms
from experiments.pretrained.data import Split
from experiments.pretrained.report import write_report, write_summary
from experiments.pretrained.training import batches, score


@pytest.fixture
def trained() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)
    )
    nn.init.normal_(model[1].weight, 1, 0.5)
    nn.init.normal_(model[1].bias)
    for _ in range(30):
        model(torch.randn(32, 3, 8, 8))
    return model.eval()


@torch.no_grad()
def distance(one: nn.Module, other: nn.Module, x: torch.Tensor) -> float:
    return float((one(x) - other(x)).square().mean())


def test_arms_differ_in_what_they_promise(trained: nn.Module) -> None:
    pool, x = torch.randn(64, 3, 8, 8), torch.randn(64, 3, 8, 8)
    arms = ("batch norm", "frozen", "naive: one", "naive: 32", "opacus", "calibrated: one", "calibrated: faithful")
    made = {arm: convert(arm, trained, pool, seed=0) for arm in (*arms, "calibrated: faithful 0.03")}
    far = {arm: distance(one.model, trained, x) for arm, one in made.items()}
    assert far["batch norm"] == far["frozen"] == 0
    assert far["calibrated: one"] < far["naive: one"]
    assert far["calibrated: faithful"] < far["opacus"]
    assert made["naive: 32"].model[1].num_groups == made["opacus"].model[1].num_groups == 32
    assert made["calibrated: faithful"].groups[0] <= made["calibrated: faithful 0.03"].groups[0]
    assert trained[1].running_mean is not None


def test_widths() -> None:
    assert [WIDTHS[way](48) for way in ("one", "size 16", "32")] == [1, 3, 16]
    norm = nn.BatchNorm1d(48, eps=0.5)
    nn.init.normal_(norm.weight)
    new = group_norms(nn.Sequential(norm), WIDTHS["size 16"])[0]
    assert (new.num_groups, new.eps) == (3, 0.5)
    assert torch.equal(new.weight, norm.weight)


def test_scores() -> None:
    """Three of four right; and of pixels: class 0 has 1 of 2, class 1 has 2 of 3 in common."""
    found = torch.tensor([[9.0, 0], [9, 0], [0, 9], [0, 9]])
    assert score(nn.Identity(), Split(found, torch.tensor([0, 1, 1, 1])), 2) == 75
    pixels = found.T.reshape(1, 2, 2, 2)
    assert score(nn.Identity(), Split(pixels, torch.tensor([[[0, 1], [1, 1]]])), 2) == pytest.approx(
        100 * (1 / 2 + 2 / 3) / 2
    )


def test_batches_are_epochs_of_the_same_seed() -> None:
    split = Split(torch.arange(6.0)[:, None], torch.arange(6))
    drawn = [y for _, y in batches(split, 3, 4, seed=1, flips=False)]
    assert sorted(torch.cat(drawn[:2]).tolist()) == sorted(torch.cat(drawn[2:]).tolist()) == list(range(6))
    assert [y.tolist() for _, y in batches(split, 3, 4, seed=1, flips=False)] == [y.tolist() for y in drawn]


def test_the_report_counts_by_hand(tmp_path: Path) -> None:
    records = [
        {"part": "kept", "network": "net", "seed": seed, "arm": arm, "score": value}
        for arm, values in {"batch norm": (80.0, 60.0), "calibrated: faithful": (70.0, 56.0)}.items()
        for seed, value in enumerate(values)
    ]
    write_report(records, tmp_path / "report.md")
    assert "| calibrated: faithful | 63.0 ± 9.9 (90.0) |" in (tmp_path / "report.md").read_text()
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- kept -->\n<!-- /kept -->\nafter\n")
    write_summary(records, page)
    assert "| net | 70.0 | – | – | – | – | – | 90 | – | – |" in page.read_text()
