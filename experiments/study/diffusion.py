"""Noise prediction as in denoising diffusion (Ho et al. 2020): the noising of images, and a small U-Net that undoes it.

A noised image goes to the network as one tensor (N, C + 1, H, W); its last channel is the time t, the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from idealgroups.errors import IdealGroupsError

SUFFIX = "-noise"
"""End of the names of data sets of which the noise is to be predicted."""

OFFSET = 0.008
"""s of the cosine schedule (Nichol & Dhariwal 2021, equation 17)."""

FREQUENCIES = 32
"""Sines of the time embedding, and as many cosines: frequencies from 1 down to nearly 1/10,000, t in thousandths."""


def signal_share(t: Tensor) -> Tensor:
    """ᾱ(t), the share of the image in the variance of its noised version: the cosine schedule from 1 at 0 to 0 at 1.

    >>> signal_share(torch.tensor([0.0, 1.0])).round(decimals=6)
    tensor([1., 0.])
    """
    start = math.cos(OFFSET / (1 + OFFSET) * math.pi / 2) ** 2
    return torch.cos((t + OFFSET) / (1 + OFFSET) * (math.pi / 2)).square() / start


def add_noise(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) → inputs (N, C + 1, H, W), noised at times drawn from [0, 1), and their noise (N, C, H, W).

    Times and noise are drawn on the CPU by ``generator``, so that they are the same on every device.
    """
    t = torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    share = signal_share(t)
    noised = share.sqrt() * images + (1 - share).clamp_min(0).sqrt() * noise
    return torch.cat([noised, t.expand(-1, 1, *images.shape[2:])], 1), noise


def time_embedding(t: Tensor, frequencies: Tensor) -> Tensor:
    """Times (N,) in [0, 1] → (N, 2F): sines and cosines of 1,000 t at F frequencies (Vaswani et al. 2017)."""
    angles = 1000 * t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def _convolution(inside: int, outside: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    convolution = nn.Conv2d(inside, outside, kernel, stride, kernel // 2)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


class TimedBlock(nn.Module):
    """The residual block of DDPM, with batch norm where that has group norm: (N, C_in, H, W) → (N, C_out, H, W).

    Norm, SiLU, convolution; the time, put through a linear layer, is added; norm, SiLU, convolution; the shortcut.
    """

    def __init__(self, inside: int, outside: int, times: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(inside), nn.SiLU(), _convolution(inside, outside))
        self.time = nn.Linear(times, outside)
        self.second = nn.Sequential(nn.BatchNorm2d(outside), nn.SiLU(), _convolution(outside, outside))
        self.shortcut = nn.Identity() if inside == outside else _convolution(inside, outside, 1)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        """The sum of branch and shortcut; ``times`` is (N, T)."""
        y = self.second(self.first(x) + self.time(times)[:, :, None, None])
        total: Tensor = y + self.shortcut(x)
        return total


class DiffusionUNet(nn.Module):
    """A small U-Net of DDPM without attention: (N, C + 1, H, W) → the noise (N, K, H, W); H and W divisible by 4.

    Three levels with a residual block each on the way down, one at the bottom, two on the way up.
    """

    def __init__(self, in_channels: int, out_channels: int, widths: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__()
        if in_channels < 2:
            raise IdealGroupsError("diffusion-unet needs an image and the time of its noise; use it with NAME-noise.")
        a, b, c = widths
        times = 4 * a
        frequencies = torch.exp(-math.log(10_000) * torch.arange(FREQUENCIES) / FREQUENCIES)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.embed = nn.Sequential(nn.Linear(2 * FREQUENCIES, times), nn.SiLU(), nn.Linear(times, times), nn.SiLU())
        self.stem = _convolution(in_channels - 1, a)
        self.down1, self.down2, self.down3 = (
            TimedBlock(inside, outside, times) for inside, outside in ((a, a), (a, b), (b, c))
        )
        self.shrink1, self.shrink2 = _convolution(a, a, stride=2), _convolution(b, b, stride=2)
        self.bottom = TimedBlock(c, c, times)
        self.up2, self.up1 = TimedBlock(c + b, b, times), TimedBlock(b + a, a, times)
        self.enlarge = nn.Upsample(scale_factor=2, mode="nearest")
        self.noise = nn.Sequential(nn.BatchNorm2d(a), nn.SiLU(), nn.Conv2d(a, out_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """The noise in every pixel."""
        frequencies: Tensor = self.get_buffer("frequencies")
        times = self.embed(time_embedding(x[:, -1, 0, 0], frequencies))
        first = self.down1(self.stem(x[:, :-1]), times)
        second = self.down2(self.shrink1(first), times)
        y = self.bottom(self.down3(self.shrink2(second), times), times)
        y = self.up2(torch.cat([self.enlarge(y), second], 1), times)
        y = self.up1(torch.cat([self.enlarge(y), first], 1), times)
        noise: Tensor = self.noise(y)
        return noise
