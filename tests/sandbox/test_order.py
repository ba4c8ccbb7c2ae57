"""Networks that see no later position, and others that only look like it; what group norms make of them."""

from __future__ import annotations

import warnings
from collections import UserDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.errors import InternalError
from idealgroups.sandbox.order import loses_order

LENGTH = 16


class Causal(nn.Conv1d):
    """A convolution of the positions up to its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, ((self.kernel_size[0] - 1) * self.dilation[0], 0)))


class Masked(nn.Conv2d):
    """PixelCNN's: of the pixels above and to the left."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones_like(self.weight)
        mask[:, :, 1, 2:] = 0
        mask[:, :, 2:] = 0
        return F.conv2d(x, self.weight * mask, self.bias, padding=1)


class MaskedLinear(nn.Linear):
    """MADE's: each output of the inputs in front of it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.tril(-1), self.bias)


def between(first: nn.Module, last: nn.Module, norm: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(first, norm or nn.BatchNorm1d(8), nn.ReLU(), last)


class Tokens(nn.Module):
    """Positions are the second axis of the inputs and of the outputs; within, the third."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body = nn.Embedding(20, 4), between(Causal(4, 8, 3), Causal(8, 5, 3))

    def forward(self, words: Tensor) -> Tensor:
        return self.body(self.embed(words).transpose(1, 2)).transpose(1, 2)


class Recurrent(nn.Module):
    """Positions are the last axis of the inputs, and the middle one of the outputs."""

    def __init__(self, both_ways: bool) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(4, 8, 1), nn.BatchNorm1d(8), nn.ReLU())
        self.gru = nn.GRU(8, 6, batch_first=True, bidirectional=both_ways)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(self.front(x).transpose(1, 2))[0]


class RowByRow(nn.Module):
    """Causal, and its norm sees one position at a time: a group norm there would, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = Causal(4, 8, 3), nn.BatchNorm1d(8), Causal(8, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).transpose(1, 2)
        return self.last(self.norm(y.reshape(-1, 8)).view_as(y).transpose(1, 2).relu())


def series() -> Tensor:
    return torch.randn(3, 4, LENGTH)


CAUSAL = {
    "convolutions": (between(Causal(4, 8, 3), Causal(8, 5, 3, dilation=2)), series(), 2),
    "tokens": (Tokens(), torch.randint(0, 20, (3, LENGTH)), 1),
    "recurrent": (Recurrent(both_ways=False), series(), 2),
    "pixels": (between(Masked(1, 8, 3), Masked(8, 4, 3), nn.BatchNorm2d(8)), torch.randn(3, 1, 8, 8), 2),
    "features": (between(MaskedLinear(32, 32), MaskedLinear(32, 32), nn.BatchNorm1d(32)), torch.randn(6, 32), 1),
    "one sample": (between(Causal(4, 8, 3), Causal(8, 5, 3)).eval(), torch.randn(1, 4, LENGTH), 2),
}
OTHERS = {
    "both ways": (between(nn.Conv1d(4, 8, 3, padding=1), nn.Conv1d(8, 5, 3, padding=1)), series()),
    "recurrent both ways": (Recurrent(both_ways=True), series()),
    "points": (between(nn.Conv1d(4, 8, 1), nn.Conv1d(8, 5, 1)), series()),
    "strided": (between(nn.Conv1d(4, 8, 3, 2, 1), nn.Upsample(scale_factor=2)), series()),
    "row by row": (RowByRow(), series()),
    "fully connected": (between(nn.Linear(8, 8), nn.Linear(8, 8)), torch.randn(6, 8)),
    "the last position": (nn.Sequential(*CAUSAL["convolutions"][0], nn.AdaptiveAvgPool1d(1)), series()),
    "group norm already": (between(Causal(4, 8, 3), Causal(8, 5, 3), nn.GroupNorm(2, 8)), series()),
}


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("training", [True, False])
def test_a_causal_network_comes_with_a_warning(name: str, training: bool) -> None:
    network, inputs, axis = CAUSAL[name]
    if name == "one sample" and training:
        pytest.skip("batch norm takes two samples in training")
    network.train(training)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.warns(UserWarning, match=rf"is causal along axis {axis} of its input.*keep batch norm"):
        ig.plan(network, inputs)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(module.training == training for module in network.modules())


@pytest.mark.parametrize("name", OTHERS)
def test_others_come_without(name: str) -> None:
    network, inputs = OTHERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ig.plan(network.train(), inputs)


def test_the_warning_is_true() -> None:
    """By the converted network itself, not by what was measured."""
    network, inputs, _ = CAUSAL["convolutions"]
    with pytest.warns(UserWarning, match="is causal"):
        converted, _ = ig.convert(network.train(), inputs)
    changed = inputs.clone()
    changed[..., -1] += 1
    for model, sees_later in ((network.eval(), False), (converted.eval(), True)):
        apart = (model(inputs) - model(changed))[..., :-1].abs().max()
        assert (apart > 1e-4) == sees_later


def test_a_plan_is_the_same_whether_or_not_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs, _ = CAUSAL["pixels"]
    with pytest.warns(UserWarning, match="is causal"):
        first = ig.plan(network, inputs)
    monkeypatch.setattr("idealgroups.measuring.observer.Observer.loses_order", lambda self: None)
    second = ig.plan(network, inputs)
    assert first.sites == second.sites
    assert (first.before, first.after) == (second.before, second.after)


@pytest.mark.parametrize(
    "after",
    [lambda x: 1 / 0, lambda x: x[..., :3], lambda x: x.sum(1), lambda x: None],
    ids=["raises", "shorter", "fewer axes", "nothing"],
)
def test_it_is_not_told_where_a_run_fails(after: Any) -> None:
    x = torch.randn(2, 3, 8)
    assert loses_order(lambda x: x.cumsum(2), after, x) is None
    assert loses_order(after, lambda x: x + x.mean(), x) is None


def test_nothing_is_told_of_inputs_without_positions() -> None:
    assert loses_order(lambda x: x, lambda x: x + x.mean(), torch.randn(4)) is None
    assert loses_order(lambda x: x.cumsum(1), lambda x: x + x.mean(1, keepdim=True), torch.randn(2, 3)) is None


class Inside(nn.Module):
    """Takes its series inside an object."""

    def __init__(self) -> None:
        super().__init__()
        self.body = CAUSAL["convolutions"][0]

    def forward(self, batch: Any) -> Tensor:
        y: Tensor = self.body(batch.x)
        return y


@dataclass
class Batch:
    x: Tensor


@pytest.mark.parametrize("kind", [Batch, SimpleNamespace], ids=["dataclass", "object"])
def test_what_is_inside_an_object_cannot_be_changed_and_nothing_is_told(kind: Any) -> None:
    inputs = (kind(x=series()),)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        converted, plan = ig.convert(Inside(), inputs)
    assert plan.samples_coupled is None
    assert isinstance(converted.body[1], nn.GroupNorm)


def test_what_is_inside_a_mapping_can_be_changed() -> None:
    class ByName(Inside):
        def forward(self, batch: Any) -> Tensor:
            return super().forward(SimpleNamespace(x=batch["x"]))

    with pytest.warns(UserWarning, match="is causal along axis 2"):
        _, plan = ig.convert(ByName(), (UserDict(x=series()),))
    assert plan.samples_coupled is False


def test_a_fault_of_our_own_is_not_hidden() -> None:
    def fault(_: Any) -> Any:
        raise InternalError("ours")

    with pytest.raises(InternalError):
        loses_order(fault, lambda x: x, torch.randn(2, 8))


@pytest.mark.parametrize("samples", [1, 2, 3, 8])
def test_no_run_gets_more_samples_than_the_inputs_have(samples: int) -> None:
    seen: list[int] = []

    def before(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x.cumsum(3)

    assert loses_order(before, lambda x: x + x.mean((2, 3), keepdim=True), torch.randn(samples, 3, 6, 8)) == 3
    assert max(seen) <= samples
    assert sum(seen) == 3 + 2 * 4  # along the other axis every position is by itself, which takes a second look
