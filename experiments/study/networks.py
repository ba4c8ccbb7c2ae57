"""Small networks of the usual families, all built with batch norm: group norms take its place when a plan is applied.

Convolutions start from He's normal (fan out) as torchvision's do, fully connected layers from torch's default.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from idealgroups.errors import IdealGroupsError

from .brains import monai_segresnet, monai_unet
from .compiled import MatrixGroupNorm, run_compiled
from .detector import SmallFCOS
from .diffusion import DiffusionUNet

Builder = Callable[[int, int, int], nn.Module]


def conv_norm(inside: int, outside: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution and the batch norm behind it."""
    convolution = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(outside)]


def _head(features: int, num_classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, num_classes)]


def mlp(hidden_layers: int, width: int = 256) -> Builder:
    """Fully connected, ``hidden_layers`` times Linear-norm-ReLU of the same width."""

    def build(in_channels: int, num_classes: int, size: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        features = in_channels * size * size
        for _ in range(hidden_layers):
            layers += [nn.Linear(features, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
            features = width
        return nn.Sequential(*layers, nn.Linear(features, num_classes))

    return build


def plain(stages: Sequence[int], depth: int, pool: bool) -> Builder:
    """Conv-norm-ReLU ``depth`` times a stage, no shortcuts; between stages a stride of 2, or an average pool."""

    def build(in_channels: int, num_classes: int, size: int) -> nn.Module:
        layers: list[nn.Module] = []
        channels = in_channels
        for stage, width in enumerate(stages):
            if stage and pool:
                layers.append(nn.AvgPool2d(2))
            for i in range(depth):
                stride = 2 if stage and not pool and i == 0 else 1
                layers += [*conv_norm(channels, width, stride=stride), nn.ReLU()]
                channels = width
        return nn.Sequential(*layers, *_head(channels, num_classes))

    return build


def series(stages: Sequence[int], depth: int, kernel: int = 5) -> Builder:
    """One-dimensional :func:`plain` for series (N, C, 1, L); between stages an average pool of four positions."""

    def build(in_channels: int, num_classes: int, size: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten(2)]
        channels, length = in_channels, size
        for stage, width in enumerate(stages):
            if stage and length >= 4:
                layers.append(nn.AvgPool1d(4))
                length //= 4
            for _ in range(depth):
                convolution = nn.Conv1d(channels, width, kernel, padding=kernel // 2, bias=False)
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
                layers += [convolution, nn.BatchNorm1d(width), nn.ReLU()]
                channels = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, num_classes))

    return build


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016), (N, C_in, H, W) → (N, C_out, H/stride, W/stride)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*conv_norm(inside, outside, stride=stride), nn.ReLU(), *conv_norm(outside, outside))
        same = stride == 1 and inside == outside
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_norm(inside, outside, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """ReLU of the sum of branch and shortcut."""
        return torch.relu(self.branch(x) + self.shortcut(x))


def resnet(stages: Sequence[int], blocks: int) -> Builder:
    """A ResNet for small images: one 3×3 stem, then ``blocks`` basic blocks a stage."""

    def build(in_channels: int, num_classes: int, size: int) -> nn.Module:
        layers: list[nn.Module] = [*conv_norm(in_channels, stages[0]), nn.ReLU()]
        channels = stages[0]
        for stage, width in enumerate(stages):
            for i in range(blocks):
                layers.append(BasicBlock(channels, width, stride=2 if stage and i == 0 else 1))
                channels = width
        return nn.Sequential(*layers, *_head(channels, num_classes))

    return build


class Residual(nn.Module):
    """Two convolutions with norm and ReLU, around which the signal goes: (N, C, H, W) → the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*conv_norm(width, width), nn.ReLU(), *conv_norm(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """The sum of branch and input."""
        y: Tensor = self.branch(x)
        return x + y


def resnet9(widths: Sequence[int] = (32, 64, 128)) -> Builder:
    """The ResNet-9 of private training (Klause et al. 2022), narrower: eight convolutions and a linear layer."""

    def build(in_channels: int, num_classes: int, size: int) -> nn.Module:
        a, b, c = widths
        return nn.Sequential(
            *conv_norm(in_channels, a), nn.ReLU(),
            *conv_norm(a, b), nn.ReLU(), nn.MaxPool2d(2), Residual(b),
            *conv_norm(b, c), nn.ReLU(), nn.MaxPool2d(2),
            *conv_norm(c, c), nn.ReLU(), nn.MaxPool2d(2), Residual(c),
            *_head(c, num_classes),
        )  # fmt: skip

    return build


class InvertedResidual(nn.Module):
    """MobileNetV2's block: 1×1 to ``expand`` times the width, 3×3 depthwise, 1×1 back without activation."""

    def __init__(self, inside: int, outside: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inside * expand
        self.branch = nn.Sequential(
            *conv_norm(inside, wide, 1),
            nn.ReLU6(),
            *conv_norm(wide, wide, 3, stride, groups=wide),
            nn.ReLU6(),
            *conv_norm(wide, outside, 1),
        )
        self.shortcut = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H/stride, W/stride)."""
        y: Tensor = self.branch(x)
        return x + y if self.shortcut else y


def mobilenet(widths: Sequence[int] = (16, 24, 40), blocks: int = 2, expand: int = 4) -> Builder:
    """A small MobileNetV2: stem, ``blocks`` inverted residuals a width, a 1×1 convolution in front of the pool."""

    def build(in_channels: int, num_classes: int, size: int) -> nn.Module:
        layers: list[nn.Module] = [*conv_norm(in_channels, widths[0]), nn.ReLU6()]
        channels = widths[0]
        for stage, width in enumerate(widths):
            for i in range(blocks):
                layers.append(InvertedResidual(channels, width, 2 if stage and i == 0 else 1, expand))
                channels = width
        last = channels * expand
        return nn.Sequential(*layers, *conv_norm(channels, last, 1), nn.ReLU6(), *_head(last, num_classes))

    return build


class UNet(nn.Module):
    """A two-level U-Net (Ronneberger et al. 2015): (N, C, H, W) → (N, K, H, W) logits; H and W divisible by 4."""

    def __init__(self, in_channels: int, num_classes: int, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        a, b, c = widths

        def twice(inside: int, outside: int) -> nn.Sequential:
            return nn.Sequential(*conv_norm(inside, outside), nn.ReLU(), *conv_norm(outside, outside), nn.ReLU())

        self.down1, self.down2, self.bottom = twice(in_channels, a), twice(a, b), twice(b, c)
        self.up2, self.up1 = twice(c + b, b), twice(b + a, a)
        self.pool, self.enlarge = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="nearest")
        self.logits = nn.Conv2d(a, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel."""
        first = self.down1(x)
        second = self.down2(self.pool(first))
        y = self.bottom(self.pool(second))
        y = self.up2(torch.cat([self.enlarge(y), second], 1))
        y = self.up1(torch.cat([self.enlarge(y), first], 1))
        logits: Tensor = self.logits(y)
        return logits


NETWORKS: dict[str, Builder] = {
    "mlp3": mlp(3),
    "mlp4": mlp(4),
    "mlp8": mlp(8),
    "mlp16": mlp(16),
    "mlp3-512": mlp(3, width=512),
    "plain9": plain((32, 64, 128), depth=3, pool=False),
    "plain15": plain((32, 32, 32), depth=5, pool=True),
    "series9": series((32, 64, 128), depth=3),
    "resnet9": resnet9(),
    "resnet9-256": resnet9((64, 128, 256)),
    "resnet14": resnet((24, 48, 96), blocks=2),
    "resnet14-128": resnet((32, 64, 128), blocks=2),
    "resnet20": resnet((16, 32, 64), blocks=3),
    "resnet56": resnet((16, 32, 64), blocks=9),
    "resnet18": resnet((64, 128, 256, 512), blocks=2),
    "mobilenet": mobilenet(),
    "unet": lambda in_channels, num_classes, size: UNet(in_channels, num_classes),
    "diffusion-unet": lambda in_channels, num_classes, size: DiffusionUNet(in_channels, num_classes),
}
"""Every network of the study by name: (in_channels, num_classes, size) → module. ``unet`` classifies pixels,
``diffusion-unet`` predicts the noise in them."""

VOLUME_NETWORKS: dict[str, Builder] = {"monai-unet": monai_unet, "monai-segresnet": monai_segresnet}
"""Those that classify the voxels of patches of a volume."""

BOX_NETWORKS: dict[str, Builder] = {"fcos": lambda in_channels, num_classes, size: SmallFCOS(in_channels)}
"""Those that find boxes."""


TIMM = "timm/"
HALF_PRECISION = "-bf16"


class HalfPrecision(nn.Module):
    """A network whose convolutions and products of matrices are in bfloat16, by ``torch.autocast``; weights are not.

    It is compiled where its norms are matrices, see ``compiled.py``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """The network's output in float32."""
        compiled = any(isinstance(module, MatrixGroupNorm) for module in self.network.modules())
        with torch.autocast(x.device.type, torch.bfloat16):
            y: Tensor = run_compiled(self.network, x) if compiled else self.network(x)
        return y.float()


def build(name: str, in_channels: int, num_classes: int, size: int) -> nn.Module:
    """The network ``name`` for images (N, in_channels, size, size), with batch norm, drawn from torch's generator.

    ``timm/NAME`` is a network of timm as it stands there, whatever norms it has. ``NAME-bf16`` computes in bfloat16.

    Raises:
        IdealGroupsError: no such network.

    >>> build("mlp3", 1, 10, 8)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    if name.endswith(HALF_PRECISION):
        return HalfPrecision(build(name.removesuffix(HALF_PRECISION), in_channels, num_classes, size))
    if name.startswith(TIMM):
        return _from_timm(name.removeprefix(TIMM), in_channels, num_classes)
    networks = {**NETWORKS, **VOLUME_NETWORKS, **BOX_NETWORKS}
    if name not in networks:
        near = difflib.get_close_matches(name, networks, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(networks)}."
        raise IdealGroupsError(f"there is no study network {name!r}; {hint}")
    return networks[name](in_channels, num_classes, size)


def _from_timm(name: str, in_channels: int, num_classes: int) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise IdealGroupsError(f"the study network {TIMM}{name} needs timm; pip install idealgroups[zoo].") from None
    try:
        network: nn.Module = timm.create_model(name, in_chans=in_channels, num_classes=num_classes)
    except RuntimeError as error:
        raise IdealGroupsError(f"timm cannot build {name!r}: {error}") from error
    return network
