"""Networks of the pilots that no study has; all with batch norm, whose place group norms take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from experiments.study.networks import BasicBlock, Residual, conv_norm

Builder = Callable[[int, int], nn.Module]
"""(channels in, classes) → network."""


def resnet(widths: Sequence[int], blocks: int) -> Builder:
    """A stem with stride 2, then ``blocks`` basic blocks a width."""

    def build(in_channels: int, num_classes: int) -> nn.Module:
        layers: list[nn.Module] = [*conv_norm(in_channels, widths[0], stride=2), nn.ReLU()]
        channels = widths[0]
        for stage, width in enumerate(widths):
            for i in range(blocks):
                layers.append(BasicBlock(channels, width, stride=2 if stage and i == 0 else 1))
                channels = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))

    return build


def plain_1d(widths: Sequence[int], depth: int) -> Builder:
    """Conv1d-norm-ReLU ``depth`` times a width, without shortcuts; a stride of 2 between widths."""

    def build(in_channels: int, num_classes: int) -> nn.Module:
        layers: list[nn.Module] = []
        channels = in_channels
        for stage, width in enumerate(widths):
            for i in range(depth):
                convolution = nn.Conv1d(channels, width, 3, 2 if stage and i == 0 else 1, 1, bias=False)
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
                layers += [convolution, nn.BatchNorm1d(width), nn.ReLU()]
                channels = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, num_classes))

    return build


def resnet9(in_channels: int, num_classes: int) -> nn.Module:
    """The ResNet-9 of private training, small: two residual parts behind max pools, the stem with stride 2."""
    return nn.Sequential(
        *conv_norm(in_channels, 32, stride=2), nn.ReLU(),
        *conv_norm(32, 32), nn.ReLU(), Residual(32),
        *conv_norm(32, 64), nn.ReLU(), nn.MaxPool2d(2),
        *conv_norm(64, 64), nn.ReLU(), Residual(64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes),
    )  # fmt: skip
