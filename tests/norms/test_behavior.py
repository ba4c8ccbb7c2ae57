"""Layers of unknown classes are told by what they do. Each is rebuilt after a published one, by its formula."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import idealgroups as ig
from hand_plans import plan_for
from idealgroups.errors import NoNormalizationError
from idealgroups.measuring.prepare import find_weights
from idealgroups.norms import Norm, inventory
from idealgroups.norms.textbook import deviation_from_textbook


class Affine(nn.Module):
    def __init__(self, channels: int, names: tuple[str, ...] = ("weight", "bias"), ndim: int = 1) -> None:
        super().__init__()
        shape = (channels,) if ndim == 1 else (1, channels, *[1] * (ndim - 2))
        for name, value in zip(names, (1.0, 0.0), strict=False):
            self.register_parameter(name, nn.Parameter(torch.full(shape, value)))


class EdmGroupNorm(Affine):
    """EDM: torch's own function, but no nn.GroupNorm."""

    def __init__(self, channels: int, num_groups: int = 4, eps: float = 1e-5) -> None:
        super().__init__(channels)
        self.num_groups, self.eps = num_groups, eps

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class PhysicsGroupNorm(EdmGroupNorm):
    """physicsnemo: by hand in evaluation mode, for images, with the variance over m - 1."""

    act_fn = None

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            y = super().forward(x)
        else:
            grouped = x.reshape(x.shape[0], self.num_groups, x.shape[1] // self.num_groups, *x.shape[2:])
            mean, var = grouped.mean((2, 3, 4), keepdim=True), grouped.var((2, 3, 4), keepdim=True)
            y = ((grouped - mean) * (var + self.eps).rsqrt()).reshape(x.shape)
            y = y * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)
        return y if self.act_fn is None else self.act_fn(y)


class FusedPhysicsGroupNorm(PhysicsGroupNorm):
    act_fn = staticmethod(F.silu)


class FedGroupNorm(nn.modules.batchnorm._BatchNorm):
    """FedML: a batch norm by class, with one scale a group, and the channels of a group called num_groups."""

    def __init__(self, channels: int, num_groups: int = 2) -> None:
        super().__init__(channels // num_groups, affine=True, track_running_stats=False)
        self.num_groups = num_groups

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        samples, channels = input.shape[:2]
        flat = input.reshape(1, samples * channels // self.num_groups, self.num_groups, *input.shape[2:])
        y = F.batch_norm(flat, None, None, self.weight.repeat(samples), self.bias.repeat(samples), True)
        return y.reshape(input.shape)


class SamLayerNorm2d(Affine):
    """SAM, PoolFormer, ViTDet, detectron2."""

    def __init__(self, channels: int, eps: float = 1e-6, names: tuple[str, ...] = ("weight", "bias")) -> None:
        super().__init__(channels, names)
        self.names, self.eps = names, eps

    def forward(self, x: Tensor) -> Tensor:
        gamma, beta = (getattr(self, name)[:, None, None] for name in self.names)
        mean = x.mean(1, keepdim=True)
        var = (x - mean).pow(2).mean(1, keepdim=True)
        return gamma * ((x - mean) / torch.sqrt(var + self.eps)) + beta


class NafFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        _, channels, _, _ = x.shape
        mean = x.mean(1, keepdim=True)
        y = (x - mean) / ((x - mean).pow(2).mean(1, keepdim=True) + eps).sqrt()
        return y * weight.view(1, channels, 1, 1) + bias.view(1, channels, 1, 1)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> None:
        raise NotImplementedError


class NafLayerNorm2d(Affine):
    """NAFNet: an autograd function of its own."""

    eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return NafFunction.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-any-return]


class ConvLayerNorm(nn.LayerNorm):
    """EnCodec: a token layer norm by class."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(-1, 1)).movedim(1, -1) if x.ndim == 2 else super().forward(x.mT).mT


class NextLayerNorm(nn.LayerNorm):
    """By class a token layer norm, over channels of any number of dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class GlobalLayerNorm(Affine):
    """Speech separation: one group, γ and β of shape (1, C, 1), for sequences."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, ("gamma", "beta"), ndim=3)

    def forward(self, x: Tensor) -> Tensor:
        mean, var = x.mean((1, 2), keepdim=True), x.var((1, 2), keepdim=True, correction=0)
        return self.gamma * (x - mean) / (var + 1e-8).sqrt() + self.beta


class TextbookBatchNorm(Affine):
    """Batch norm as courses write it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, ("gamma", "beta"), ndim=4)
        self.register_buffer("moving_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("moving_var", torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.moving_mean, self.moving_var
        if self.training:
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
            self.moving_mean = 0.9 * self.moving_mean + 0.1 * mean
            self.moving_var = 0.9 * self.moving_var + 0.1 * var
        return self.gamma * (x - mean) / (var + 1e-5).sqrt() + self.beta


STANDARD = {
    "EDM": (EdmGroupNorm(8), 4, 1e-5),
    "EDM, another ε": (EdmGroupNorm(8, eps=1e-3), 4, 1e-3),
    "physicsnemo": (PhysicsGroupNorm(8), 4, 1e-5),
    "physicsnemo with its activation": (FusedPhysicsGroupNorm(8), 4, 1e-5),
    "FedML": (FedGroupNorm(8), 4, 1e-5),
    "SAM": (SamLayerNorm2d(8), None, 1e-6),
    "SAM with γ and β": (SamLayerNorm2d(8, names=("gamma", "beta")), None, 1e-6),
    "parameters in another order": (SamLayerNorm2d(8, names=("b", "g")), None, 1e-6),
    "NAFNet": (NafLayerNorm2d(8), None, 1e-6),
    "EnCodec": (ConvLayerNorm(8), None, 1e-5),
    "layer norm over channels": (NextLayerNorm(8), None, 1e-5),
    "layer norm over channels without affine": (NextLayerNorm(8, elementwise_affine=False), None, 1e-5),
    "speech separation": (GlobalLayerNorm(8), 1, 1e-8),
    "batch norm of a course": (TextbookBatchNorm(8), None, 1e-5),
}


@pytest.mark.parametrize("name", STANDARD)
def test_standard_layers_are_planned_whatever_they_are_called(name: str) -> None:
    layer, groups, eps = STANDARD[name]
    found = inventory(layer)
    assert found.odd == {}
    norm = found.norms[""]
    assert (norm.num_channels, norm.num_groups, norm.eps, norm.kind) == (8, groups, eps, type(layer).__name__)


@pytest.mark.parametrize("name", STANDARD)
def test_a_group_norm_in_their_place_computes_the_same(name: str) -> None:
    """So scale, shift, ε and activation are those of the layer."""
    layer, groups, _ = STANDARD[name]
    layer = copy.deepcopy(layer)
    for number, parameter in enumerate(layer.parameters()):
        nn.init.normal_(parameter, mean=1 + number)
    is_sequence = name in ("speech separation", "EnCodec")
    x = 0.01 * torch.randn((4, 8, 6) if is_sequence else (4, 8, 6, 6))
    if groups is None:  # at one position, layer norm over channels is one group
        x = x[..., :1] if is_sequence else x[..., :1, :1]
    net = nn.Sequential(layer)
    expected = layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trained layers change
        new = ig.apply(net, plan_for(net, {"0": groups or 1}))
    assert isinstance(new[0], nn.GroupNorm)
    if "batch norm" not in name:
        torch.testing.assert_close(new(x), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("channels", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("kind", [SamLayerNorm2d, NafLayerNorm2d, ConvLayerNorm, TextbookBatchNorm])
def test_the_number_of_channels_does_not_matter(kind: type[nn.Module], channels: int) -> None:
    norms = inventory(kind(channels)).norms
    assert [norm.num_channels for norm in norms.values()] == [channels]


class BatchRenorm(Affine):
    """CrossQ: as batch norm at first, later by running statistics even in training."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_std", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        dims, ones = (0, *range(2, x.ndim)), [1] * (x.ndim - 2)
        mean, std = x.mean(dims), x.std(dims, correction=0) + 1e-3
        limit = (2 / 35000 * self.num_batches_tracked + 25 / 35).clamp(1, 3)
        r = (std / self.running_std).clamp(1 / limit, limit)
        shift, scale = (mean.reshape(-1, *ones), (std / r).reshape(-1, *ones))
        return self.weight.reshape(-1, *ones) * (x - shift) / scale + self.bias.reshape(-1, *ones)


class UnbiasedBatchNorm(Affine):
    def forward(self, x: Tensor) -> Tensor:
        y = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
        return y * self.weight[:, None, None] + self.bias[:, None, None]


class GhostBatchNorm(nn.BatchNorm2d):
    """Batch norm over parts of a batch."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        return torch.cat([F.batch_norm(part, None, None, self.weight, self.bias, True) for part in x.chunk(2)])


class LengthNorm(Affine):
    """Every sample has length one."""

    def forward(self, x: Tensor) -> Tensor:
        y = x / x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
        return y * self.weight.reshape(-1, *[1] * (x.ndim - 2)) + self.bias.reshape(-1, *[1] * (x.ndim - 2))


class RootMeanSquare(Affine):
    """Llama: over the last dimension."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, ("weight",))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()


class HandLayerNorm(Affine):
    """BERT as first written: over the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        return self.weight * (x - mean) / ((x - mean).pow(2).mean(-1, keepdim=True) + 1e-12).sqrt() + self.bias


class GraphNorm(Affine):
    """As in torch_geometric: over the nodes of a graph, which are the rows; with a share of the mean to take off."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.mean_scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = x - x.mean(0, keepdim=True) * self.mean_scale
        return self.weight * y / (y.pow(2).mean(0, keepdim=True) + 1e-5).sqrt() + self.bias


class BatchNormOfLast(Affine):
    """Over samples and positions of (N, L, C)."""

    def forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(x.ndim - 1))
        y = (x - x.mean(axes)) / (x.var(axes, unbiased=False) + 1e-5).sqrt()
        return y * self.weight + self.bias


class OverTime(Affine):
    """RevIN: each channel of a series (N, L, C) over its length."""

    def forward(self, x: Tensor) -> Tensor:
        y = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return y * self.weight + self.bias


class GroupsOfLast(Affine):
    """Group norm of (N, …, C)."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.group_norm(x.movedim(-1, 1), 2).movedim(1, -1)
        return y * self.weight + self.bias


class LayerScale(Affine):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.reshape(-1, *[1] * (x.ndim - 2))


class Sign(Affine):
    """Binary networks: another scale of the input has the same output, but nothing is normalized."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sign() * self.weight.reshape(-1, *[1] * (x.ndim - 2))


class Positions(Affine):
    """Gives the same whatever the input is."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x) + self.weight.reshape(-1, *[1] * (x.ndim - 2))


class FlatConvolution(Affine):
    """A weight of one dimension is no scale."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.weight.reshape(-1, x.shape[1], 1))


class Raises(nn.Module):
    """Reading an attribute of somebody else's module may do anything."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(8))

    @property
    def weight(self) -> Tensor:
        raise RuntimeError("merge the adapters first")

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("layer", [BatchRenorm(8), UnbiasedBatchNorm(8), GraphNorm(8), GraphNorm(2)])
def test_layers_that_couple_samples_in_their_own_way_are_named(layer: nn.Module) -> None:
    assert "couples" in inventory(layer).odd[""]


@pytest.mark.parametrize("layer", [GhostBatchNorm(8), LengthNorm(8)])
def test_other_normalizations_are_named(layer: nn.Module) -> None:
    found = inventory(layer)
    assert type(layer).__name__ in found.odd[""]
    assert not found.norms


@pytest.mark.parametrize("layer", [RootMeanSquare(8), HandLayerNorm(8), HandLayerNorm(768)])
def test_normalization_of_the_last_dimension_is_for_tokens(layer: nn.Module) -> None:
    found = inventory(layer)
    assert found.tokens == {""}
    assert not found.norms
    assert not found.odd


@pytest.mark.parametrize("layer", [LayerScale(8), Sign(8), Positions(8), FlatConvolution(8), Raises(), nn.PReLU(8)])
def test_layers_that_do_not_normalize_are_none_of_these(layer: nn.Module) -> None:
    assert not inventory(layer).names


def test_a_network_with_nothing_but_layers_that_are_not_understood_is_told_why() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), LengthNorm(8), nn.Conv2d(8, 8, 3), UnbiasedBatchNorm(8))
    with pytest.raises(NoNormalizationError) as error:
        ig.plan(model, torch.randn(2, 3, 8, 8))
    assert str(error.value) == (
        "Sequential has no normalization layer over channels, so there is no number of groups to plan; not understood: "
        "1: LengthNorm normalizes in a way of its own, which no group norm stands for (1 more)."
    )


@pytest.mark.parametrize("kind", [BatchNormOfLast, OverTime, GroupsOfLast])
def test_what_normalizes_more_than_one_position_of_the_last_dimension_is_none_of_tokens(
    kind: Callable[[int], nn.Module],
) -> None:
    """On (N, C) they stand for a usual layer; on (N, L, C) they are named and left."""
    flat = nn.Sequential(nn.Linear(8, 8), kind(8), nn.ReLU(), nn.Linear(8, 8))
    assert not inventory(flat).tokens
    assert ig.plan(flat, torch.randn(4, 8)).num_groups.keys() == {"1"}
    with pytest.raises(ig.IdealGroupsError, match="no normalization layer can be planned: 1 has 8 channels but got an"):
        ig.plan(flat, torch.randn(4, 5, 8))
    model = nn.Sequential(nn.Conv1d(5, 5, 3, padding=1), nn.GroupNorm(1, 5), nn.ReLU(), flat)
    with pytest.warns(UserWarning, match=r"3\.1 stays as it is because it has 8 channels"):
        converted, plan = ig.convert(model, torch.randn(4, 5, 8))
    assert [missed.name for missed in plan.not_understood] == ["3.1"]
    assert type(converted[3][1]) is kind


def test_a_layer_is_tried_once_however_often_it_stands_in_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.Size] = []

    class Counted(SamLayerNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(x.shape)
            return super().forward(x)

    inventory(Counted(8))
    once = len(calls)
    calls.clear()
    found = inventory(nn.Sequential(*(Counted(8) for _ in range(5))))
    assert len(found.norms) == 5
    assert len(calls) == once


class NarrowIdentity(nn.BatchNorm2d):
    """Normalizes from eight channels on."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.num_features >= 8 else x


class Timm(nn.BatchNorm2d):
    """A batch norm with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def test_layers_that_are_what_their_class_promises_are_tried_in_one_width(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    briefly_tried: list[int] = []

    def count(module: nn.Module, norm: Norm, *, briefly: bool = False) -> str | None:
        (briefly_tried if briefly else tried).append(norm.num_channels)
        return deviation_from_textbook(module, norm, briefly=briefly)

    monkeypatch.setattr("idealgroups.norms.recognise.deviation_from_textbook", count)
    widths = (8, 16, 1, 32, 1)
    found = inventory(nn.Sequential(*map(Timm, widths), Timm(64, eps=0.1), Timm(64, affine=False)))
    assert [norm.num_channels for norm in found.norms.values()] == [*widths, 64, 64]
    assert [norm.eps for norm in found.norms.values()][-2:] == [0.1, 1e-5]
    assert [norm.weight for norm in found.norms.values()][-2:] == ["weight", None]
    assert tried == [8, 1, 64, 64]  # one channel is another case, and so is another setting
    assert briefly_tried == [16, 32]


def test_a_layer_that_is_something_else_in_one_width_does_not_speak_for_others() -> None:
    found = inventory(nn.Sequential(*map(NarrowIdentity, (4, 8, 4, 16))))
    assert list(found.norms) == ["1", "3"]
    assert list(found.odd) == ["0", "2"]


class NarrowBound(nn.BatchNorm2d):
    """Clips more the fewer channels it has."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-4 * self.num_features, 4 * self.num_features)


@pytest.mark.parametrize("norm", [NarrowIdentity, NarrowBound])
@pytest.mark.parametrize("strategy", ["isometric", "fixed-32"])
def test_a_layer_that_is_something_else_when_narrow_is_found_out(norm: Any, strategy: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3), norm(16), nn.Conv2d(16, 4, 3), norm(4), nn.Conv2d(4, 2, 1))
    plan = ig.plan(net, torch.randn(4, 3, 9, 9), strategy=strategy)
    assert list(plan.num_groups) == ["1"]
    assert [item.name for item in plan.not_understood] == ["3"]


class Scaled(nn.GroupNorm):
    """Multiplies its output by ``factor``, which every case keeps in another way."""

    def __init__(self, factor: Any) -> None:
        super().__init__(2, 8)
        self.keep(factor)

    def keep(self, factor: Any) -> None:
        self.register_buffer("factor", torch.tensor(factor))

    def factor_now(self) -> Any:
        return self.factor

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.factor_now()


class InteriorOfLongTuple(Scaled):
    """``repr`` shortens a long tensor."""

    def keep(self, factor: Any) -> None:
        self.kept = (torch.zeros(2000),)
        self.kept[0][1000] = factor

    def factor_now(self) -> Any:
        return self.kept[0][1000]


class InWord(Scaled):
    """A word with an attribute."""

    def keep(self, factor: Any) -> None:
        self.word = type("Word", (str,), {})("same")
        self.word.factor = factor

    def factor_now(self) -> Any:
        return self.word.factor


class InOrder(Scaled):
    def keep(self, factor: Any) -> None:
        self.register_buffer("order", torch.arange(8) if factor == 1 else torch.arange(8).flip(0))

    def factor_now(self) -> Any:
        return 1 + self.order[:, None, None] - torch.arange(8)[:, None, None]


class InFlag(Scaled):
    def keep(self, factor: Any) -> None:
        self.weight.requires_grad_(factor == 1)

    def factor_now(self) -> Any:
        return 1 if self.weight.requires_grad else 2


class InSlot(Scaled):
    __slots__ = ("slot",)

    def keep(self, factor: Any) -> None:
        self.slot = factor

    def factor_now(self) -> Any:
        return self.slot

    def __getstate__(self) -> Any:
        return {**vars(self), "kept": self.slot}

    def __setstate__(self, state: Any) -> None:
        self.slot = state.pop("kept")
        super().__setstate__(state)


@pytest.mark.parametrize("kind", [Scaled, InteriorOfLongTuple, InWord, InOrder, InFlag, InSlot])
@pytest.mark.parametrize("first", [1.0, 2.0])
def test_a_layer_does_not_speak_for_one_that_keeps_another_setting(kind: type[Scaled], first: float) -> None:
    found = inventory(nn.Sequential(kind(first), kind(3 - first), kind(first)))
    assert list(found.norms) == (["0", "2"] if first == 1 else ["1"])
    assert list(found.odd) == (["1"] if first == 1 else ["0", "2"])


@pytest.mark.parametrize(
    "buffer",
    [
        torch.eye(2).to_sparse(),
        torch.zeros(1, dtype=torch.complex64).conj(),
        torch.zeros(0),
        torch.tensor(torch.nan),
        torch.zeros(1, dtype=torch.float8_e4m3fn),
        torch.zeros(2, device="meta"),
    ],
    ids=["sparse", "complex", "empty", "nan", "float8", "meta"],
)
def test_a_layer_with_a_buffer_of_any_kind_is_tried(buffer: Tensor) -> None:
    layers = [EdmGroupNorm(8, 2) for _ in range(2)]
    for layer in layers:
        layer.register_buffer("kept", buffer)
    found = inventory(nn.Sequential(*layers))
    assert [norm.num_groups for norm in found.norms.values()] == [2, 2]


def test_epsilon_in_a_buffer_is_that_of_each_layer() -> None:
    class Own(nn.Module):
        def __init__(self, eps: float) -> None:
            super().__init__()
            self.w, self.b = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))
            self.register_buffer("epsilon", torch.tensor(eps))

        def forward(self, x: Tensor) -> Tensor:
            return F.group_norm(x, 2, self.w, self.b, float(self.epsilon))

    found = inventory(nn.Sequential(Own(1e-5), Own(1e-3), Own(1e-5)))
    assert [norm.eps for norm in found.norms.values()] == [1e-5, 1e-3, 1e-5]


def test_layers_that_differ_in_a_setting_are_tried_each() -> None:
    found = inventory(nn.Sequential(EdmGroupNorm(8, 2), EdmGroupNorm(8, 4), EdmGroupNorm(8, 2)))
    assert [norm.num_groups for norm in found.norms.values()] == [2, 4, 2]


def test_what_is_skipped_is_not_tried() -> None:
    class Dangerous(SamLayerNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("tried")

    model = nn.Sequential(Dangerous(8), nn.BatchNorm2d(8))
    found = inventory(model, lambda name: "matches exclude")
    assert dict(found.skipped) == {"0": "matches exclude"}
    assert list(found.norms) == ["1"]  # torch's own layer needs no trial


def test_looking_prints_nothing_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    class Talks(TextbookBatchNorm):
        def forward(self, x: Tensor) -> Tensor:
            print("forward")
            return super().forward(x)

    layer = Talks(8)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    state = torch.get_rng_state()
    assert inventory(layer).norms
    assert capsys.readouterr().out == ""
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize("without_values", [torch.device("meta"), FakeTensorMode()])
def test_layers_without_values_are_told_too(without_values: Any) -> None:
    with without_values:
        model = nn.Sequential(SamLayerNorm2d(8), EdmGroupNorm(8), Scaled(8), GhostlessBatchNorm(8))
    found = inventory(model)
    assert list(found.norms) == ["0", "1", "3"]
    assert [weight.name for weight in find_weights(model, found)] == []


class Scaled(LayerScale):
    pass


class GhostlessBatchNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)
