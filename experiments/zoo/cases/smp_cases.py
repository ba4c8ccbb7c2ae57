"""segmentation-models-pytorch: each architecture with encoders of different kinds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from idealgroups.synthetic import synthetic

from . import Case

ENCODERS = ("resnet18", "mobilenet_v2", "efficientnet-b0")
WITHOUT_DILATION = {"PAN": ("resnet18", "mobilenet_v2"), "DPT": ("tu-vit_tiny_patch16_224",)}


def cases() -> Iterator[Case]:
    for architecture in smp.MODEL_ARCHITECTURES_MAPPING.values():
        name = architecture.__name__
        for encoder in WITHOUT_DILATION.get(name, ENCODERS):
            yield Case("smp", f"{name}-{encoder}", "u-net", partial(_build, architecture, encoder))


def _build(architecture: type[nn.Module], encoder: str) -> tuple[nn.Module, Tensor]:
    arguments = {"dynamic_img_size": False} if encoder.startswith("tu-vit") else {}
    model = architecture(encoder_name=encoder, encoder_weights=None, in_channels=3, classes=4, **arguments)
    if encoder.startswith("tu-vit"):
        return model, synthetic((2, 3, 224, 224))
    px = 128 if architecture is smp.PAN else 64
    return model, synthetic((4, 3, px, px))
