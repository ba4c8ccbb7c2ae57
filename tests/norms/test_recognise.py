"""What counts as a normalization layer over channels, and what does not."""

from __future__ import annotations

import pytest
import timm.layers as tl
import torch
from timm.layers.norm_act import FrozenBatchNormAct2d
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops.misc import FrozenBatchNorm2d

from idealgroups.norms import Norm, inventory
from idealgroups.norms.group_norm_act import GroupNormAct
from idealgroups.norms.textbook import deviation_from_textbook
from idealgroups.sandbox.supported import is_lazy


def recognise(module: nn.Module) -> Norm | None:
    return inventory(module).norms.get("")


def why_not(module: nn.Module) -> str | None:
    return inventory(module).odd.get("")


def is_token_layer_norm(module: nn.Module) -> bool:
    return "" in inventory(module).tokens


class ReluBatchNorm(nn.BatchNorm2d):
    """Activates without telling."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class CastingBatchNorm(nn.BatchNorm2d):
    """Does its work in float32, and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class ConditionalBatchNorm(nn.BatchNorm2d):
    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.embed = nn.Embedding(10, num_features)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return super().forward(x) * self.embed(label)[:, :, None, None]


class TwoInputs(nn.BatchNorm2d):
    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return super().forward(x) * scale


class ChannelsFirst(nn.Module):
    """ConvNeXt's own layer norm."""

    def __init__(self, num_channels: int, data_format: str = "channels_first") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.data_format = data_format
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        var = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(var + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


ConvNextLayerNorm = type("ConvNextLayerNorm", (ChannelsFirst,), {})


class ImageLayerNorm2d(nn.LayerNorm):
    """Named like a channel norm, but over C, H and W."""


class NodeInstanceNorm(nn.InstanceNorm1d):
    """As in torch_geometric: normalizes each channel of (nodes, C) over the nodes."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return nn.functional.instance_norm(input.t().unsqueeze(0)).squeeze(0).t()


class BackwardsLayerNorm2d(nn.LayerNorm):
    """Named like a channel norm, but for tensors of shape (N, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def parametrized() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.BatchNorm2d(8))


KNOWN = {
    "BatchNorm1d": (nn.BatchNorm1d(8), None),
    "BatchNorm2d": (nn.BatchNorm2d(8, affine=False), None),
    "BatchNorm3d": (nn.BatchNorm3d(8, track_running_stats=False), None),
    "SyncBatchNorm": (nn.SyncBatchNorm(8), None),
    "InstanceNorm2d": (nn.InstanceNorm2d(8, affine=True), 8),
    "GroupNorm": (nn.GroupNorm(2, 8), 2),
    "torchvision frozen": (FrozenBatchNorm2d(8), None),
    "torchvision LayerNorm2d": (LayerNorm2d(8), None),
    "timm LayerNorm2d": (tl.LayerNorm2d(8), None),
    "timm LayerNorm2d without affine": (tl.LayerNorm2d(8, affine=False), None),
    "timm LayerNorm2dFp32": (tl.LayerNorm2dFp32(8), None),
    "timm LayerNormAct2d": (tl.LayerNormAct2d(8), None),
    "timm BatchNormAct2d": (tl.BatchNormAct2d(8), None),
    "timm FrozenBatchNormAct2d": (FrozenBatchNormAct2d(8), None),
    "timm GroupNorm": (tl.GroupNorm(8, 4), 4),
    "timm GroupNorm1": (tl.GroupNorm1(8), 1),
    "timm GroupNormAct": (tl.GroupNormAct(8, 4), 4),
    "ours": (GroupNormAct(2, 8, act=nn.ReLU()), 2),
    "channels_first": (ConvNextLayerNorm(8), None),
    "a subclass that only casts": (CastingBatchNorm(8), None),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_layers_are_recognised(name: str) -> None:
    module, groups = KNOWN[name]
    norm = recognise(module)
    assert norm is not None
    assert (norm.num_channels, norm.num_groups, norm.kind) == (8, groups, type(module).__name__)
    assert why_not(module) is None


@pytest.mark.parametrize("name", [name for name in KNOWN if name != "SyncBatchNorm"])  # which runs on GPUs only
def test_the_forwards_that_are_trusted_deserve_it(name: str) -> None:
    module, _ = KNOWN[name]
    norm = recognise(module)
    assert norm is not None
    assert deviation_from_textbook(module, norm) is None


class CumulativeLayerNorm(ChannelsFirst):
    """As in speech separation networks: each time step is normalized by itself and all before it."""

    def forward(self, x: Tensor) -> Tensor:
        count = torch.arange(1, x.shape[-1] + 1) * x.shape[1]
        mean = x.sum(1, keepdim=True).cumsum(-1) / count
        square = x.pow(2).sum(1, keepdim=True).cumsum(-1) / count
        x = (x - mean) / (square - mean**2 + self.eps).sqrt()
        return self.weight[:, None] * x + self.bias[:, None]


UNKNOWN = {
    "written by hand": (CumulativeLayerNorm(8), "way of its own"),
    "hidden activation": (ReluBatchNorm(8), "does more than normalize"),
    "conditional": (ConditionalBatchNorm(8), "of its own (embed)"),
    "two inputs": (TwoInputs(8), "does not take one tensor"),
    "split batch norm": (tl.SplitBatchNorm2d(8, num_splits=2), "of its own (aux_bn)"),
    "parametrized γ": (parametrized(), "of its own (parametrizations"),
    "RMS norm": (tl.RmsNorm2d(8), "way of its own"),
    "EvoNorm": (tl.EvoNorm2dS0(8), "way of its own"),
    "filter response norm": (tl.FilterResponseNormTlu2d(8), "way of its own"),
    "samples as positions": (NodeInstanceNorm(8), "does not take one tensor"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_layers_that_no_group_norm_stands_for_are_named_with_a_reason(name: str) -> None:
    module, reason = UNKNOWN[name]
    assert recognise(module) is None
    assert reason in (why_not(module) or "")


def test_a_hidden_activation_shows_behind_a_zero_scale() -> None:
    layer = ReluBatchNorm(8)
    nn.init.zeros_(layer.weight)
    assert recognise(layer) is None


def test_trying_a_layer_leaves_it_alone() -> None:
    seen: list[int] = []
    layer = CastingBatchNorm(8)
    layer.register_forward_hook(lambda *_: seen.append(1))
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    state = torch.get_rng_state()
    assert recognise(layer) is not None
    assert layer.training
    assert not seen
    assert len(layer._forward_hooks) == 1
    assert torch.equal(state, torch.get_rng_state())
    for key, value in layer.state_dict().items():
        assert torch.equal(value, before[key])


def test_half_precision_trained_and_meta_layers_are_recognised_too() -> None:
    trained = CastingBatchNorm(8)
    trained(torch.randn(4, 8, 5, 5) * 3 + 1)
    nn.init.normal_(trained.weight)
    assert recognise(trained) is not None
    assert recognise(CastingBatchNorm(8).to(torch.bfloat16)) is not None
    assert recognise(CastingBatchNorm(8).to("meta")) is not None


@pytest.mark.parametrize(
    "module", [nn.LayerNorm(8), tl.LayerNorm(8), ImageLayerNorm2d((8, 4, 4)), BackwardsLayerNorm2d(8)]
)
def test_token_layer_norm_is_not_over_channels(module: nn.Module) -> None:
    assert is_token_layer_norm(module)
    assert recognise(module) is None
    assert why_not(module) is None


@pytest.mark.parametrize("module", [nn.Conv2d(3, 8, 3), nn.Sequential(nn.BatchNorm2d(8)), nn.Identity()])
def test_other_modules_are_neither(module: nn.Module) -> None:
    assert recognise(module) is None
    assert why_not(module) is None
    assert not is_token_layer_norm(module)


def test_lazy_layers_are_recognised_after_their_first_run() -> None:
    lazy = nn.LazyBatchNorm2d()
    assert is_lazy(lazy)
    lazy(torch.randn(2, 6, 4, 4))
    norm = recognise(lazy)
    assert not is_lazy(lazy)
    assert norm is not None
    assert (norm.kind, norm.num_channels) == ("BatchNorm2d", 6)


def test_finish_applies_the_layers_own_activation() -> None:
    layer = tl.BatchNormAct2d(4, act_layer=nn.ReLU)
    norm = recognise(layer)
    assert norm is not None
    assert norm.after == ("drop", "act")
    assert norm.finish(layer, torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]
