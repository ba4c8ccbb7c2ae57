"""Small networks that hold one difficulty each, and a few whole ones."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_block(inside: int, outside: int, norm: nn.Module | None = None, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), norm or nn.BatchNorm2d(outside), nn.ReLU(inplace=True)
    )


def plain(width: int = 16, depth: int = 4) -> nn.Sequential:
    layers = [conv_block(3 if i == 0 else width, width) for i in range(depth)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


def group_normed(groups: int = 4) -> nn.Sequential:
    return nn.Sequential(
        conv_block(3, 16, nn.GroupNorm(groups, 16)),
        conv_block(16, 16, nn.GroupNorm(groups, 16)),
        nn.Flatten(),
        nn.Linear(16 * 64, 5),
    )


def mlp(norm: type[nn.Module] = nn.BatchNorm1d, width: int = 64, depth: int = 3) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(20 if i == 0 else width, width), norm(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 5))


class UNet(nn.Module):
    """Two levels, skip connections, transposed convolutions."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.down1 = conv_block(1, width)
        self.down2 = conv_block(width, 2 * width, stride=2)
        self.middle = conv_block(2 * width, 4 * width, stride=2)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.merge2 = conv_block(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.merge1 = conv_block(2 * width, width)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(a)
        c = self.middle(b)
        b = self.merge2(torch.cat([self.up2(c), b], 1))
        a = self.merge1(torch.cat([self.up1(b), a], 1))
        return self.head(a)


class Shared(nn.Module):
    """One norm, two parents, two resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, 2, padding=1)
        norm = nn.BatchNorm2d(16)
        self.first = nn.Sequential(norm, nn.ReLU())
        self.second = nn.Sequential(norm, nn.ReLU())
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.conv2(self.first(self.conv1(x))))
        return self.head(x.mean((2, 3)))


class Twice(nn.Module):
    """The same norm called twice by one parent; another is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.unused = nn.BatchNorm2d(24)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv2(F.relu(self.norm(self.conv1(x)))))


class Functional(nn.Module):
    """A norm by function call beside one by module, and functional dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.block = FunctionalBlock()

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.block(F.relu(self.norm(self.conv1(x)))), 0.5)


class FunctionalBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.group_norm(self.conv(x), 4))


class ZeroInit(nn.Module):
    """A residual branch that starts at zero in three ways: γ, a last convolution, LayerScale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_block(3, 16)
        self.branch1 = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.branch2 = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
        self.branch3 = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.layer_scale = nn.Parameter(torch.full((16, 1, 1), 1e-6))
        self.head = nn.Linear(16, 5)
        nn.init.zeros_(self.branch1[1].weight)
        nn.init.zeros_(self.branch2[2].weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.branch1(x))
        x = x + self.branch2(x)
        x = x + self.layer_scale * self.branch3(x)
        return self.head(x.mean((2, 3)))


@dataclass
class Output:
    logits: Tensor
    extra: dict[str, Tensor]


class Structured(nn.Module):
    """Takes keywords, returns a dataclass with an integer tensor in it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain()

    def forward(self, *, pixels: Tensor, mask: Tensor) -> Output:
        logits = self.net(pixels * mask)
        return Output(logits, {"twice": logits * 2, "best": logits.argmax(-1)})


class Video(nn.Module):
    """3-D convolutions over (N, C, T, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv3d(3, 16, 3, (1, 2, 2), 1),
                norm1=nn.BatchNorm3d(16),
                act1=nn.ReLU(),
                conv2=nn.Conv3d(16, 32, 3, 2, 1),
                norm2=nn.InstanceNorm3d(32, affine=True),
                act2=nn.ReLU(),
            )
        )
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3, 4)))
