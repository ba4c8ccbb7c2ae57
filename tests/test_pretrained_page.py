"""The code of docs/pretrained.md runs as it stands."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

PAGE = Path(__file__).resolve().parent.parent / "docs" / "pretrained.md"


def test_every_block_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opacus")
    pretrained = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    images = torch.randn(64, 3, 8, 8)
    for _ in range(5):
        pretrained(images)
    names: dict[str, object] = {
        "torch": torch,
        "pretrained": pretrained.eval(),
        "images": images,
        "public_images": images,
        "unlabelled": images.split(16),
        "loader": DataLoader(TensorDataset(images, torch.zeros(64, dtype=torch.long)), batch_size=16),
    }
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="opacus")  # on its random numbers
        for block in blocks:
            exec(block, names)
    plan = names["plan"]
    assert plan.calibrated_on == 64
    assert len(blocks) == 3
