"""What one pass changes on a copy, the next one does not see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from idealgroups.measuring.observer import Observer

X = torch.randn(4, 3, 8, 8)


class Changes(nn.Module):
    """Something about the model changes in its forward."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)
        self.book = nn.Parameter(torch.ones(1), requires_grad=False)
        self.register_buffer("grid", torch.ones(1).expand(4))
        self.register_buffer("seen", torch.zeros(1))
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        self.change(self)
        x = self.norm(self.conv(x * self.book)) * (1 if self.training else 2)
        return self.head(x.relu().mean((2, 3))) + self.grid.sum() + self.seen.sum() * self.conv.weight.mean()


@torch.no_grad()
def in_place(model: Changes) -> None:
    model.book.mul_(0.5)


def behind_the_version_counter(model: Changes) -> None:
    model.book.data.mul_(0.5)


def other_storage(model: Changes) -> None:
    model.book.data = model.book.data * 0.5


def another_parameter(model: Changes) -> None:
    model.book = nn.Parameter(model.book.detach() * 0.5, requires_grad=False)


def evaluation(model: Changes) -> None:
    if model.training:
        model.eval()
    else:
        model.train()


def resized(model: Changes) -> None:
    model.seen.resize_(model.seen.numel() + 1).fill_(1.0)


@pytest.mark.parametrize(
    "change", [in_place, behind_the_version_counter, other_storage, another_parameter, evaluation, resized]
)
def test_every_pass_measures_the_same(change: Any) -> None:
    model = Changes(change)
    observer = Observer(model, X)
    first, *others = (observer.observe({"norm": 2}) for _ in range(3))
    assert all(seen == first for seen in others)
    assert float(model.book) == 1.0
    assert model.seen.shape == (1,)
