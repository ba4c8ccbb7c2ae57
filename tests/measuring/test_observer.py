"""Observation: exact against really regrouping, honest about what it cannot see, and without a trace on the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

import networks
from idealgroups import IdealGroupsError
from idealgroups.measuring.backward import norm
from idealgroups.measuring.observer import Observer
from idealgroups.synthetic import synthetic
from idealgroups.theory.formulas import divisors
from idealgroups.theory.layer import WeightShape

Untouched = Callable[[nn.Module, Callable[[], Any]], Any]


class Tapped(nn.Module):
    """conv → GN → ReLU → conv, whose GN input and output gradient the test reads for itself."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = nn.GroupNorm(groups, channels)
        self.conv2 = nn.Conv2d(channels, 4, 3, padding=1)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.norm(self.conv1(x))))


@pytest.mark.parametrize(("channels", "groups"), [(12, 3), (16, 1), (7, 7)])
def test_curves_of_a_network_equal_regrouping_its_tensors(channels: int, groups: int) -> None:
    model = Tapped(channels, groups).double()
    x = torch.randn(3, 3, 6, 5, dtype=torch.float64)
    weights = torch.randn(3, 4, 6, 5, dtype=torch.float64)

    def loss(output: Tensor) -> Tensor:
        return (output * weights).sum()

    curves = Observer(model, x, loss).observe({"norm": groups}, with_curves=True).curves["norm"]
    z = model.conv1(x).detach()
    normalized = F.group_norm(z, groups, eps=model.norm.eps).requires_grad_()
    y = normalized * model.norm.weight[:, None, None] + model.norm.bias[:, None, None]
    (d,) = torch.autograd.grad(loss(model.conv2(F.relu(y))), normalized)
    widths = divisors(channels)
    assert curves.group_sizes.tolist() == widths
    kept = []
    for c in widths:
        grouped = z.reshape(3, channels // c, -1)
        s2 = grouped.var(-1, correction=0) + model.norm.eps
        one = z.reshape(3, 1, -1).var(-1, correction=0) + model.norm.eps
        amplification = float((one / s2).mean().log())
        assert curves.amplification[widths.index(c)] == pytest.approx(amplification, abs=1e-6)
        leaf = z.clone().requires_grad_()
        (dz,) = torch.autograd.grad(F.group_norm(leaf, channels // c, eps=model.norm.eps), leaf, d)
        unprojected = (d.reshape(3, channels // c, -1) ** 2).sum(-1) / s2
        kept.append(float((dz**2).sum() / unprojected.sum()))
    assert np.allclose(curves.projection, np.log(kept[-1]) - np.log(kept), atol=1e-6)


def test_relative_gradients_are_those_of_autograd() -> None:
    model = networks.group_normed().double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    seen = Observer(model, x, lambda y: y.square().sum()).observe(None)
    model(x).square().sum().backward()
    expected = {
        n: float(p.grad.norm() / p.detach().norm())
        for n, p in model.named_parameters()
        if p.ndim > 1 and p.grad is not None
    }
    assert {g.name: pytest.approx(g.relative) for g in seen.gradients} == expected
    assert [g.name for g in seen.gradients] == ["0.0.weight", "1.0.weight", "3.weight"]


def test_execution_order_is_not_registration_order() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(8, 2)
            self.first = nn.Linear(4, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x))

    seen = Observer(Backwards(), torch.randn(3, 4)).observe(None)
    assert [g.name for g in seen.gradients] == ["first.weight", "last.weight"]


def test_regrouping_is_what_the_model_would_do() -> None:
    batch, group = networks.plain(), networks.plain()
    for block in list(group)[:4]:
        block[1] = nn.GroupNorm(4, 16)
    group.load_state_dict(batch.state_dict(), strict=False)
    x = torch.randn(4, 3, 8, 8)
    as_planned = Observer(batch, x).observe({f"{i}.1": 4 for i in range(4)})
    as_built = Observer(group, x).observe(None)
    assert np.allclose(as_planned.measured.line, as_built.measured.line, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (networks.plain(), torch.randn(2, 3, 8, 8)),
        (networks.group_normed().half(), torch.randn(2, 3, 8, 8).half()),
        (networks.group_normed().bfloat16().eval(), torch.randn(2, 3, 8, 8).bfloat16()),
        (networks.ZeroInit(), torch.randn(2, 3, 8, 8)),
        (networks.mlp(), torch.randn(8, 20)),
        (networks.Functional(), torch.randn(2, 3, 8, 8)),
    ],
    ids=["batch norm", "half", "bfloat16", "zero-initialised", "mlp", "functional"],
)
def test_nothing_changes(untouched: Untouched, model: nn.Module, x: Tensor) -> None:
    next(iter(model.parameters())).requires_grad_(False)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, 0.5)
    model.register_forward_hook(lambda module, args, output: None)
    before = x.clone()

    def work() -> None:
        observer = Observer(model, x)
        survey, _ = observer.survey()
        observer.observe(dict.fromkeys(survey.positions, 1))

    untouched(model, work)
    assert torch.equal(x, before)


def test_nothing_changes_when_the_model_raises_half_way(untouched: Untouched) -> None:
    model = networks.plain()

    class Bomb(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.rand(3)
            raise ValueError("half way")

    model[2][2] = Bomb()
    x = torch.randn(2, 3, 8, 8)
    with pytest.raises(IdealGroupsError, match="half way"), torch.no_grad():
        untouched(model, lambda: Observer(model, x).survey())


def test_branches_that_start_at_zero_are_measured_switched_on() -> None:
    model = networks.ZeroInit()
    observer = Observer(model, torch.randn(2, 3, 8, 8))
    assert observer.woken == {"branch1.1.weight", "branch2.2.weight", "layer_scale"}
    seen = observer.observe(None)
    assert seen.silent == ()
    assert len(seen.gradients) == 5
    assert all(g.relative > 1e-4 for g in seen.gradients)


def test_functional_norms_are_seen_and_functional_dropout_is_off() -> None:
    observer = Observer(networks.Functional(), torch.randn(2, 3, 8, 8))
    survey, first = observer.survey()
    assert survey.functional == {"block": "F.group_norm"}
    assert list(survey.positions) == ["norm"]
    assert np.array_equal(first.measured.line, observer.observe(None).measured.line)


class Fickle(nn.Module):
    """Goes another way, or raises, where its norm has one group."""

    def __init__(self, raises: bool) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.ways = nn.ModuleList([nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1)])
        self.last = nn.Linear(8, 2)
        self.raises = raises

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x) + 3 * torch.arange(8).view(-1, 1, 1))
        is_one_group = bool((x.mean((0, 2, 3)).abs() > 0.1).any())
        if is_one_group and self.raises:
            x = x[:, :4]
        return self.last(self.ways[int(is_one_group)](x).mean((2, 3)))  # type: ignore[no-any-return]


def test_a_pass_that_goes_another_way_than_the_survey_is_followed_again() -> None:
    observer = Observer(Fickle(raises=False), torch.randn(4, 3, 8, 8))
    _, first = observer.survey()
    assert [layer.name for layer in first.gradients] == ["first.weight", "ways.0.weight", "last.weight"]
    other = observer.observe({"norm": 1})
    assert [layer.name for layer in other.gradients] == ["first.weight", "ways.1.weight", "last.weight"]
    assert [layer.in_line for layer in other.gradients] == [True, False, False]
    assert observer.observe(None).gradients == first.gradients


def in_another_order(net: Shuffled, x: Tensor, is_one_group: bool) -> Tensor:
    first, second = (net.two, net.one) if is_one_group else (net.one, net.two)
    return second(net.inner(first(x)))


def norm_behind_another_sum(net: Shuffled, x: Tensor, is_one_group: bool) -> Tensor:
    one, two = net.one(x), net.two(x)
    return net.inner(one + two) if is_one_group else net.inner(one) + two


def another_detached(net: Shuffled, x: Tensor, is_one_group: bool) -> Tensor:
    one, two = net.inner(net.one(x)), net.one(net.two(x))
    return one.detach() + two if is_one_group else one + two.detach() + net.two(x)


def checkpointed_in_another_order(net: Shuffled, x: Tensor, is_one_group: bool) -> Tensor:
    first, second = (net.two, net.one) if is_one_group else (net.one, net.two)
    return torch.utils.checkpoint.checkpoint(lambda x: second(net.inner(first(x))), x, use_reentrant=True)


def checkpointed_later(net: Shuffled, x: Tensor, is_one_group: bool) -> Tensor:
    body = nn.Sequential(net.one, net.inner, net.two)
    return torch.utils.checkpoint.checkpoint(body, x, use_reentrant=True) if is_one_group else body(x)


class Shuffled(nn.Module):
    """The same layers run, in another ``way`` where the first norm has one group."""

    def __init__(self, way: Any) -> None:
        super().__init__()
        self.first, self.norm, self.inner = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.one, self.two, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 2)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x) + 3 * torch.arange(8).view(-1, 1, 1))
        is_one_group = bool((x.mean((0, 2, 3)).abs() > 0.1).any())
        return self.last(self.way(self, F.relu(x), is_one_group).mean((2, 3)))  # type: ignore[no-any-return]


WAYS = [
    in_another_order,
    norm_behind_another_sum,
    another_detached,
    checkpointed_in_another_order,
    checkpointed_later,
]


@pytest.mark.parametrize("way", WAYS)
def test_the_line_of_a_later_pass_is_that_of_the_way_it_went(way: Any) -> None:
    surveyed, fresh = (Observer(Shuffled(way), torch.randn(4, 3, 8, 8)) for _ in range(2))
    fresh.model.load_state_dict(surveyed.model.state_dict())
    surveyed, fresh = (Observer(observer.model, surveyed._inputs) for observer in (surveyed, fresh))
    surveyed.survey()
    for groups in ({"norm": 1}, {"norm": 8}, {"norm": 1, "inner": 2}):
        assert surveyed.observe(groups).gradients == fresh.observe(groups).gradients


def test_a_pass_like_the_survey_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    observer = Observer(networks.Twice(), torch.randn(2, 3, 8, 8))
    observer.survey()
    runs: list[Any] = []
    run = observer._run
    monkeypatch.setattr(observer, "_run", lambda seen: (runs.append(seen), run(seen))[1])
    observer.observe({"norm": 2})
    observer.observe(None)
    assert len(runs) == 2


def test_what_raises_in_a_later_pass_is_said_with_its_place() -> None:
    observer = Observer(Fickle(raises=True), torch.randn(4, 3, 8, 8))
    observer.survey()
    with pytest.raises(IdealGroupsError, match=r"ways\.1 \(Conv2d\) takes 8 channels"):
        observer.observe({"norm": 1})


def test_a_norm_called_twice_and_one_never_called() -> None:
    observer = Observer(networks.Twice(), torch.randn(2, 3, 8, 8))
    survey, _ = observer.survey()
    assert survey.silent_norms == ("unused",)
    assert observer.observe({"norm": 1}, with_curves=True).curves["norm"].num_channels == 16


def test_a_shared_norm_is_one_layer_with_its_smallest_map() -> None:
    observer = Observer(networks.Shared(), torch.randn(2, 3, 8, 8))
    survey, _ = observer.survey()
    assert survey.positions == {"first.0": 16}
    assert survey.flat == frozenset()
    assert not observer.observe({"first.0": 1}, with_curves=True).curves["first.0"].flat


def test_only_a_norm_that_never_sees_a_second_position_is_flat() -> None:
    class Pyramid(nn.Module):
        """One head for maps of two sizes, the smaller one a single pixel, and a fully connected layer."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
            self.neck = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))

        def forward(self, x: Tensor) -> Tensor:
            return self.neck(self.head(x).mean((2, 3)) + self.head(x.mean((2, 3), keepdim=True)).flatten(1))

    observer = Observer(Pyramid(), torch.randn(4, 3, 4, 4))
    survey, _ = observer.survey()
    assert survey.positions == {"head.1": 1, "neck.1": 1}
    assert survey.flat == {"neck.1"}
    seen = observer.observe({"head.1": 1, "neck.1": 1}, with_curves=True)
    assert {name: curve.flat for name, curve in seen.curves.items()} == {"head.1": False, "neck.1": True}


def test_ratio_is_elements_in_over_elements_out() -> None:
    class PreActivation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)
            self.conv = nn.Conv2d(8, 32, 3, 2, padding=1)
            self.after = nn.BatchNorm2d(32)

        def forward(self, x: Tensor) -> Tensor:
            return self.after(self.conv(F.relu(self.norm(self.stem(x) * 2))))

    survey, _ = Observer(PreActivation(), torch.randn(2, 3, 8, 8)).survey()
    assert {name: weight.ratio for name, weight in survey.weights.items()} == {"norm": 1.0, "after": 1.0}
    shape = WeightShape(in_channels=8, out_channels=32, in_positions=64, out_positions=16)
    assert set(survey.weights.values()) == {shape}


def test_in_pre_activation_order_every_norm_belongs_to_the_weight_layer_behind_it() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 1)
            self.norm1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3, padding=1)
            self.norm2, self.conv2 = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x) + 0
            return x + self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))

    survey, _ = Observer(Block(), torch.randn(2, 3, 8, 8)).survey()
    assert {name: weight.ratio for name, weight in survey.weights.items()} == {"norm1": 0.5, "norm2": 2.0}


# --- the line --------------------------------------------------------------------------------------------------------


class Forked(nn.Module):
    """Weights in front of a norm, behind every norm, and beside the norms on a path of their own."""

    def __init__(self, checkpoint: bool = False) -> None:
        super().__init__()
        self.front, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.middle, self.last_norm = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
        self.beside, self.head = nn.Conv2d(3, 4, 1), nn.Linear(12, 5)
        self.checkpoint = checkpoint

    def body(self, x: Tensor) -> Tensor:
        return self.last_norm(self.middle(F.relu(self.norm(self.front(x)))))

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        y = torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=True) if self.checkpoint else self.body(x)
        return self.head(torch.cat([y.mean((2, 3)), self.beside(x).mean((2, 3))], 1))


def in_line(observer: Observer) -> set[str]:
    _, seen = observer.survey()
    return {layer.name for layer in seen.gradients if layer.in_line}


def test_only_weights_with_a_planned_norm_between_them_and_the_loss_are_in_the_line() -> None:
    x = torch.randn(2, 3, 8, 8)
    assert in_line(Observer(Forked(), x)) == {"front.weight", "middle.weight"}
    assert in_line(Observer(Forked(), x, skip=lambda name: None if name == "norm" else "why")) == {"front.weight"}
    assert in_line(Observer(Forked(), x, skip=lambda name: "why")) == set()


def test_where_reentrant_checkpoints_hide_the_graph_the_order_of_execution_decides() -> None:
    assert in_line(Observer(Forked(checkpoint=True), torch.randn(2, 3, 8, 8))) == {"front.weight", "middle.weight"}


def test_the_number_of_classes_does_not_enter_the_line() -> None:
    """The gradient of the head depends on the classes, and no number of groups changes it."""
    seen = {}
    for classes in (2, 1000):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, classes)
        )
        _, seen[classes] = Observer(model, torch.randn(64, 3, 8, 8)).survey()
    heads = [next(g.relative for g in s.gradients if not g.in_line) for s in seen.values()]
    assert [g.name for g in seen[2].gradients if not g.in_line] == ["4.weight"]
    assert len(seen[2].measured.line) == len(seen[1000].measured.line) == 1
    assert heads[0] > 5 * heads[1]


def test_the_line_of_dp_sgd_is_that_of_the_gradient_per_element() -> None:
    model, x = networks.plain(), synthetic((4, 3, 16, 16))
    observer = Observer(model, x, lambda y: y.square().sum(), optimizer="dp-sgd")
    _, seen = observer.survey()
    gradients = dict(model.named_parameters())
    model(x).square().sum().backward()
    for layer in seen.gradients:
        gradient = gradients[layer.name].grad
        assert gradient is not None
        assert layer.per_element == pytest.approx(float(gradient.square().mean().sqrt()), rel=1e-3)
    expected = [np.log(layer.per_element) for layer in seen.gradients if layer.in_line]
    assert seen.measured.line == pytest.approx(expected)


def without_a_word(y: Tensor) -> Tensor:
    raise AssertionError


@pytest.mark.parametrize(
    ("model", "x", "loss", "message"),
    [
        (networks.plain(), torch.randn(2, 1, 8, 8), None, r"0.0 \(Conv2d\) takes 3 channels .* 2x1x8x8 have 1"),
        (networks.plain(), torch.full((2, 3, 8, 8), torch.nan), None, "not finite"),
        (networks.plain(), torch.randn(2, 3, 8, 8), lambda y: y, "one differentiable number"),
        (networks.plain(), torch.randn(2, 3, 8, 8), lambda y: y["loss"], "the loss raised"),
        (networks.plain(), torch.randn(2, 3, 8, 8), without_a_word, "the loss raised AssertionError[.]$"),
        (networks.plain(), torch.randn(2, 3, 8, 8), lambda y: y.sum() * torch.inf, "not finite"),
        (nn.Sequential(nn.BatchNorm2d(3)), torch.randn(2, 3, 8, 8), None, "depends on its weights|no weight layer"),
    ],
)
def test_errors_are_one_sentence(model: nn.Module, x: Tensor, loss: Any, message: str) -> None:
    with pytest.raises(IdealGroupsError, match=message):
        Observer(model, x, loss).observe(None)


def test_checkpointed_models_do_not_count_twice() -> None:
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self, use_reentrant: bool) -> None:
            super().__init__()
            self.net, self.use_reentrant = networks.plain(depth=3), use_reentrant

        def forward(self, x: Tensor) -> Tensor:
            for block in self.net[:3]:
                x = checkpoint(block, x, use_reentrant=self.use_reentrant)
            return self.net[3:](x)

    x = torch.randn(2, 3, 8, 8)
    model = Checkpointed(use_reentrant=False)
    plain = Observer(model.net, x).observe({f"{i}.1": 4 for i in range(3)}, with_curves=True)
    again = Observer(model, x).observe({f"net.{i}.1": 4 for i in range(3)}, with_curves=True)
    assert np.allclose(plain.measured.line, again.measured.line, atol=1e-5)
    for name, curve in plain.curves.items():
        assert np.allclose(curve.projection, again.curves[f"net.{name}"].projection, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e20, 1e30])
@pytest.mark.parametrize("shape", [(7,), (64, 100), (5, 1024), (2000, 3), (300, 301), (600, 601)])
def test_the_norm_is_exact_at_every_scale(scale: float, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape) * scale
    expected = float(x.double().square().sum().sqrt())
    assert float(norm(x)) == pytest.approx(expected, rel=1e-6)
    assert float(norm(x.mT if x.ndim > 1 else x)) == pytest.approx(expected, rel=1e-6)
