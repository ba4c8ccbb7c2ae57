"""A converted model is tried before it is returned: what cannot be converted is named, and the model is put back."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import idealgroups as ig
import networks
from idealgroups.measuring.observation import Observation
from idealgroups.records import WeightGradient
from idealgroups.trial import _deviation, find_fault


class AsksForClass(nn.Module):
    """Routing networks choose the layout of their tensors by the class of the norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, h: Tensor) -> Tensor:
        if isinstance(self.norm, nn.BatchNorm1d):
            return self.norm(h.flatten(0, 1)).view_as(h)
        assert isinstance(self.norm, nn.InstanceNorm1d), "unknown normalizer"
        return self.norm(h.mT).mT


class AsksForAttribute(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(width)

    def forward(self, h: Tensor) -> Tensor:
        return self.bn(h.reshape(-1, self.bn.num_features)).view_as(h)


class SkipsOthers(nn.Module):
    """Says nothing: a norm that is no batch norm is not called."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(width)

    def forward(self, h: Tensor) -> Tensor:
        return self.bn(h.mT).mT if isinstance(self.bn, nn.BatchNorm1d) else h


class UsesStatistics(nn.Module):
    """A batch norm of its own making, with the layer's tensors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(width)

    def forward(self, h: Tensor) -> Tensor:
        y = self.bn(h.mT).mT
        return y + 0 * self.bn.running_mean.sum()


class Other(nn.Module):
    """An ordinary block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(width, width), nn.BatchNorm1d(width)

    def forward(self, h: Tensor) -> Tensor:
        return F.relu(self.norm(self.linear(h).mT).mT)


ODD = [AsksForClass, AsksForAttribute, SkipsOthers, UsesStatistics]


def routing(odd: type[nn.Module], width: int = 32) -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, width),
        Other(width),
        odd(width),
        nn.ReLU(),
        nn.Linear(width, width),
        odd(width),
        nn.Linear(width, 1),
    )


@pytest.mark.parametrize("odd", ODD)
def test_a_layer_whose_class_is_asked_for_is_named_and_left_by_exclude(odd: type[nn.Module]) -> None:
    model, x = routing(odd), torch.rand(6, 20, 2)
    name = "norm" if odd is AsksForClass else "bn"
    with pytest.raises(ig.IdealGroupsError, match=rf"the group norm at [25]\.{name}; leave it .*exclude=") as caught:
        ig.convert(model, x)
    assert "\n" not in str(caught.value)
    excluded = eval(str(caught.value).rpartition("exclude=")[2].rstrip("."))
    assert set(excluded) == {f"2.{name}", f"5.{name}"}
    new, plan = ig.convert(model, x, exclude=excluded)
    assert plan.num_groups.keys() == {"1.norm"}
    assert isinstance(new[1].norm, nn.GroupNorm)
    new(x).sum().backward()


@pytest.mark.parametrize("odd", ODD)
def test_in_place_the_model_is_put_back(odd: type[nn.Module], untouched: Callable[..., Any]) -> None:
    model, x = routing(odd), torch.rand(6, 20, 2)
    kinds = {name: (type(module), list(vars(module))) for name, module in model.named_modules()}
    with pytest.raises(ig.IdealGroupsError):
        untouched(model, lambda: ig.convert(model, x, inplace=True))
    assert {name: (type(module), list(vars(module))) for name, module in model.named_modules()} == kinds
    model(x)


def test_where_no_norm_can_be_converted_exclude_is_not_advised() -> None:
    model = nn.Sequential(nn.Linear(2, 32), AsksForClass(32), nn.ReLU(), nn.Linear(32, 1))
    with pytest.raises(ig.IdealGroupsError, match=r"because of the group norm at 1\.norm, and no norm is left"):
        ig.convert(model, torch.rand(6, 20, 2))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (networks.plain, (4, 3, 16, 16)),
        (networks.mlp, (16, 20)),
        (networks.UNet, (2, 1, 16, 16)),
        (networks.Shared, (4, 3, 16, 16)),
        (networks.ZeroInit, (4, 3, 8, 8)),
        (networks.Video, (2, 3, 4, 8, 8)),
        (networks.group_normed, (1, 3, 8, 8)),
        (lambda: networks.plain().half(), (4, 3, 16, 16)),
    ],
)
def test_healthy_models_pass(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    model = make()
    x = torch.randn(shape)
    new, plan = ig.convert(model, x)
    assert ig.groups(new).keys() >= plan.num_groups.keys()


def test_identical_samples_and_random_models_are_no_fault() -> None:
    ig.convert(networks.plain(), torch.ones(4, 3, 8, 8))

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.noise = networks.plain(), torch.Generator().manual_seed(0)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x + torch.randn(x.shape, generator=self.noise))

    ig.convert(Noisy(), torch.randn(4, 3, 8, 8))


def test_a_layer_with_nothing_to_normalize_is_left_and_told() -> None:
    def model(width: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(10, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, width), nn.BatchNorm1d(width)
        )

    for width in (1, 2):
        with pytest.warns(
            UserWarning,
            match=rf"layer 4 stays as it is because it has {width} values? to normalize: .*constant or a sign",
        ):
            new, _ = ig.convert(model(width), torch.randn(32, 10))
        assert isinstance(new[4], nn.BatchNorm1d)
        assert isinstance(new[1], nn.GroupNorm)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ig.convert(model(width), torch.randn(32, 10), exclude="4")
    only = nn.Sequential(nn.Linear(10, 1), nn.BatchNorm1d(1))
    with pytest.raises(ig.IdealGroupsError, match="one or two values to normalize in each sample"):
        ig.convert(only, torch.randn(32, 10))


def test_constant_outputs_and_lost_gradients_are_faults() -> None:
    from idealgroups.measuring.observer import Observer

    x = torch.randn(8, 3, 8, 8)

    def watch(model: nn.Module, copy_of: nn.Module | None = None) -> Observer:
        return Observer(model, x, copy_of=copy_of)

    model = networks.plain(depth=2)
    promised = watch(model).observe(None)

    class Dead(nn.GroupNorm):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name for it
            return super().forward(input) * 0 + 1

    dead = networks.plain(depth=2)
    dead[1][1] = Dead(1, 16)
    fault = find_fault(dead, ["1.1"], promised, promised, watch)
    assert fault is not None
    assert fault.what == "has a constant output of the layer 1.1"
    cut = nn.Sequential(model[0], model[1], nn.ReLU(), *model[2:])
    cut[2].register_forward_hook(lambda module, args, output: output.detach())
    fault = find_fault(cut, [], promised, promised, watch)
    assert fault is not None
    assert "lets no gradient reach 0.0.weight" in fault.what
    assert find_fault(model, [], promised, promised, watch) is None


@pytest.mark.parametrize("odd", ODD)
def test_apply_tries_the_result_where_it_has_inputs(odd: type[nn.Module], untouched: Callable[..., Any]) -> None:
    model, x = routing(odd), torch.rand(6, 20, 2)
    plan, other = ig.plan(model, x), torch.rand(6, 20, 2)
    with pytest.raises(ig.IdealGroupsError, match="exclude="):
        untouched(model, lambda: ig.apply(model, plan, other))
    with pytest.raises(ig.IdealGroupsError, match="exclude="):
        untouched(model, lambda: ig.apply(model, plan, other, inplace=True))
    assert isinstance(ig.apply(model, plan, torch.rand(3, 20, 2), include="1.*")[1].norm, nn.GroupNorm)


class Embedded(nn.Module):
    """A time embedding is added to every channel in front of a norm, as in diffusion."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem, self.time = nn.Conv2d(3, width, 3, padding=1), nn.Linear(8, width)
        self.norm, self.out = nn.BatchNorm2d(width), nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.out(F.relu(self.norm(self.stem(x) + self.time(t)[:, :, None, None])))


def test_a_weight_that_the_groups_cut_off_is_a_fault_though_its_gradient_is_rounding_and_no_zero() -> None:
    inputs = torch.randn(4, 3, 8, 8), torch.randn(4, 8)
    with pytest.raises(ig.IdealGroupsError, match=r"lets no gradient reach time\.weight, because of the .* at norm"):
        ig.convert(Embedded(), inputs, strategy="instance")
    ig.convert(Embedded(), inputs, strategy=ig.GroupSize(2))


def test_gradients_that_vanish_with_depth_are_no_fault() -> None:
    deep = [layer for _ in range(60) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())]
    _, plan = ig.convert(nn.Sequential(nn.Conv2d(3, 8, 1), *deep), torch.randn(2, 3, 8, 8), strategy="layer")
    assert plan.trend_before < -5  # a factor of 150 from the last weight to the first, and other factors with groups


class CountsItself(nn.Module):
    """Knows how many models of its kind there are while it runs."""

    most = 0

    def __init__(self) -> None:
        super().__init__()
        self.net = networks.plain(depth=1)

    def forward(self, x: Tensor) -> Tensor:
        CountsItself.most = max(CountsItself.most, sum(type(item) is CountsItself for item in gc.get_objects()))
        return self.net(x)


@pytest.mark.parametrize("inplace", [False, True])
def test_whatever_runs_is_the_only_copy(inplace: bool) -> None:
    CountsItself.most = 0
    model = CountsItself()
    model, plan = ig.convert(model, torch.randn(4, 3, 8, 8), inplace=inplace)
    assert CountsItself.most == 2
    CountsItself.most = 0
    del model
    ig.apply(CountsItself(), plan, torch.randn(4, 3, 8, 8), inplace=inplace)
    assert CountsItself.most == 2


def observation(values: NDArray[np.float64]) -> Observation:
    gradients = [
        WeightGradient(name=str(place), relative=float(value), norm=1.0, numel=1, in_line=True)
        for place, value in enumerate(values)
    ]
    return Observation({}, tuple(gradients), ())


def test_the_deviation_is_that_of_two_least_squares_lines() -> None:
    rng = np.random.default_rng(0)
    for length in (2, 3, 20):
        one, other = np.exp(rng.normal(size=(2, length)))
        lines = [np.polyfit(np.arange(length), np.log(values), 1)[0] for values in (one, other)]
        found = _deviation(observation(one), observation(other))
        assert found == pytest.approx(abs(lines[0] - lines[1]) * (length - 1))
    assert _deviation(observation(one[:1]), observation(other[:1])) == 0


class Squeeze(nn.Module):
    """One hidden unit that adds two channels: with one group their means cancel, so its ReLU is off for all samples."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3)
        self.shrink, self.grow = nn.Conv2d(2, 1, 1), nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            self.shrink.weight.fill_(1.0)
            self.shrink.bias.fill_(-0.01)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return self.last(x * torch.sigmoid(self.grow(torch.relu(self.shrink(x.mean((2, 3), keepdim=True))))))


def test_a_unit_that_happens_to_be_off_is_no_fault() -> None:
    torch.manual_seed(0)
    net, x = Squeeze(), torch.randn(4, 3, 8, 8) + torch.randn(4, 3, 1, 1)
    assert "shrink.weight" in {layer.name for layer in ig.measure(net, x).layers}
    plan = ig.plan(net, x, strategy="layer")
    assert "shrink.weight" in ig.measure(net, x, plan=plan).silent
    weights = net.state_dict()
    converted = ig.apply(net, plan, x)
    assert isinstance(converted.norm, nn.GroupNorm)
    assert all(torch.equal(weights[name], value) for name, value in net.state_dict().items())
    assert torch.equal(converted.shrink.weight, net.shrink.weight)
