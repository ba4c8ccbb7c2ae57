"""Six networks of the usual families with batch norm, each on one task, and how each is pretrained here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import DenseNet

from experiments.study.networks import UNet, mobilenet, plain, resnet


@dataclass(frozen=True)
class Case:
    """``epochs``, ``batch`` and ``rate`` of its pretraining (SGD with momentum, one cycle)."""

    task: str
    build: Callable[[], nn.Module]
    epochs: int
    batch: int = 128
    rate: float = 0.2


class Audio(nn.Module):
    """A small M5 (Dai et al. 2016): strided convolutions over the waveform, (N, 1, L) → (N, K)."""

    def __init__(self, num_classes: int, widths: tuple[int, ...] = (32, 32, 64, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for i, width in enumerate(widths):
            kernel, stride = (64, 4) if i == 0 else (3, 1)
            layers += [nn.Conv1d(channels, width, kernel, stride, kernel // 2, bias=False), nn.BatchNorm1d(width)]
            layers += [nn.ReLU(), nn.MaxPool1d(4)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean(-1))
        return logits


def densenet() -> nn.Module:
    """Torchvision's DenseNet with three blocks of four layers and a stem that keeps the resolution."""
    model = DenseNet(growth_rate=16, block_config=(4, 4, 4), num_init_features=24, bn_size=2, num_classes=10)
    model.features.conv0 = nn.Conv2d(3, 24, 3, padding=1, bias=False)
    model.features.pool0 = nn.Identity()
    made: nn.Module = model
    return made


CASES = {
    "resnet": Case("cifar10", lambda: resnet((24, 48, 96), 2)(3, 10, 16), 3),
    "mobilenet": Case("cifar10", lambda: mobilenet()(3, 10, 16), 3),
    "vgg": Case("cifar10", lambda: plain((32, 64, 128), 2, pool=True)(3, 10, 16), 4),
    "densenet": Case("cifar10", densenet, 3),
    "unet": Case("brain", lambda: UNet(1, 4), 25, batch=8, rate=0.1),
    "audio": Case("instruments", lambda: Audio(12), 25, batch=32, rate=0.05),
}


GLYPHS = Case("glyphs", lambda: resnet((16, 32, 64), 1)(1, 36, 16), 2, batch=64, rate=0.1)
"""The network of federated fine-tuning."""


def build(case: Case, seed: int) -> nn.Module:
    """The untrained network; ``seed`` draws its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return case.build()
