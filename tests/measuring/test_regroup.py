"""Calls of normalization layers that are out of the ordinary: regrouped right, or left as they are and named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.measuring.loss import random_projection
from idealgroups.measuring.observer import Observer

X = torch.randn(6, 3, 8, 8)


def body(norm: Any = lambda c: nn.GroupNorm(4, c)) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), norm(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    )


class Around(nn.Module):
    """A body that is called by ``call(body, x)``."""

    def __init__(self, call: Any, norm: Any = lambda c: nn.GroupNorm(4, c)) -> None:
        super().__init__()
        self.body, self.call = body(norm), call

    def forward(self, x: Tensor) -> Any:
        return self.call(self.body, x)


def mapped(net: nn.Module, x: Tensor) -> Tensor:
    return torch.vmap(lambda one: net(one[None])[0])(x)


def mapped_over_pairs(net: nn.Module, x: Tensor) -> Tensor:
    return torch.vmap(net)(x.unflatten(0, (3, 2))).flatten(0, 1)


def mapped_twice(net: nn.Module, x: Tensor) -> Tensor:
    inner = torch.vmap(lambda one: net(one[None])[0], in_dims=1)
    return torch.vmap(inner)(x.unflatten(0, (3, 2)).movedim(1, 2)).flatten(0, 1)


def functional(net: nn.Module, x: Tensor) -> Tensor:
    return torch.func.functional_call(net, dict(net.named_parameters()), (x,))


@pytest.mark.parametrize("call", [mapped, mapped_over_pairs, mapped_twice, functional])
def test_function_transforms_give_what_plain_calls_give(call: Any) -> None:
    plain = Observer(Around(lambda net, x: net(x)), X).observe({"body.1": 2}, with_curves=True)
    other = Observer(Around(call), X).observe({"body.1": 2}, with_curves=True)
    assert np.allclose(other.measured.line, plain.measured.line, atol=1e-5)
    for key in ("amplification", "projection"):
        assert np.allclose(getattr(other.curves["body.1"], key), getattr(plain.curves["body.1"], key), atol=1e-5)


def test_derivatives_by_function_transforms_are_planned() -> None:
    def forces(net: nn.Module, x: Tensor) -> Tensor:
        return torch.func.grad(lambda y: net(y).square().sum())(x)

    def forces_by_autograd(net: nn.Module, x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            return torch.autograd.grad(net(y).square().sum(), y, create_graph=True)[0]

    seen, other = (Observer(Around(call), X).observe({"body.1": 2}, True) for call in (forces, forces_by_autograd))
    assert np.allclose(seen.measured.line, other.measured.line, atol=1e-5)
    assert [g.in_line for g in seen.gradients] == [g.in_line for g in other.gradients] == [True, True]


class WithTime(nn.BatchNorm2d):
    """Takes a second argument, as conditional norms do, and may be called by keywords in any order."""

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        return super().forward(x)


def test_the_input_is_found_by_its_name() -> None:
    class Net(Around):
        def __init__(self) -> None:
            super().__init__(lambda net, x: net[2:](net[1](t=None, x=net[0](x))), WithTime)

    plain = Observer(Around(lambda net, x: net(x), nn.BatchNorm2d), X).observe({"body.1": 2})
    assert np.array_equal(Observer(Net(), X).observe({"body.1": 2}).measured.line, plain.measured.line)


def second_argument(net: nn.Module, x: Tensor) -> Tensor:
    return net[2:](net[1](net[0](x), t=torch.ones(1)))


def without_batch(net: nn.Module, x: Tensor) -> Tensor:
    return net[2:](net[1](net[0](x)[0])[None])


@pytest.mark.parametrize(
    ("call", "norm", "why"),
    [
        (second_argument, WithTime, "more than one argument"),
        (without_batch, nn.InstanceNorm2d, r"\(N, C, …\) is needed"),
    ],
)
def test_odd_calls_are_named_and_leave_the_other_layers_alone(call: Any, norm: Any, why: str) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3))
            self.odd = Around(call, norm)

        def forward(self, x: Tensor) -> Tensor:
            return self.odd(self.stem(x))

    plan = ig.plan(Two(), X)
    assert plan.num_groups.keys() == {"stem.1"}
    assert [item.name for item in plan.not_understood] == ["odd.body.1"]
    with pytest.raises(ig.IdealGroupsError, match=why + r".*exclude='odd.body.1'"):
        Observer(Two(), X).observe({"odd.body.1": 2})


def test_sixteen_channels_of_sixteen_positions_without_a_batch_are_not_a_batch() -> None:
    class Unbatched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv1d(3, 16, 1), nn.InstanceNorm1d(16), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.conv(x)).mean(-1))

    survey, _ = Observer(Unbatched(), torch.randn(3, 16)).survey()
    assert "without a batch axis" in survey.odd["norm"]
    assert not survey.positions


def test_half_precision_by_autocast_inside_a_model_is_measured_nearly_alike() -> None:
    def autocast(net: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return net(x)

    plain = Observer(Around(lambda net, x: net(x)), X).observe({"body.1": 2}, with_curves=True)
    half = Observer(Around(autocast), X).observe({"body.1": 2}, with_curves=True)
    assert np.allclose(half.measured.line, plain.measured.line, atol=0.05)
    assert np.allclose(half.curves["body.1"].amplification, plain.curves["body.1"].amplification, atol=0.01)


class Counted(nn.ReLU):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        Counted.calls += 1
        return super().forward(x)


def test_projections_are_averaged_on_one_forward_pass() -> None:
    model = body()
    Counted.calls = 0
    model[2] = Counted()
    observer = Observer(model, X, projections=3)
    several = observer.observe({"1": 2}, with_curves=True)
    assert Counted.calls == 1
    alone = [Observer(model, X, random_projection(0, index)).observe({"1": 2}) for index in range(3)]
    for index, gradient in enumerate(several.gradients):
        squares = [one.gradients[index].relative ** 2 for one in alone]
        assert gradient.relative == pytest.approx(np.sqrt(np.mean(squares)))
    assert len({one.gradients[0].relative for one in alone}) == 3
    one_of_them = Observer(model, X).observe({"1": 2}, with_curves=True).curves["1"]
    assert np.allclose(several.curves["1"].amplification, one_of_them.amplification)
    assert not np.allclose(several.curves["1"].projection, one_of_them.projection, atol=1e-12)
