"""MONAI's networks, two- and three-dimensional, small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.networks import nets
from monai.networks.nets.dints import DiNTS, TopologyInstance
from torch import Tensor, nn

from idealgroups.synthetic import synthetic

from . import Case

IMAGE, COLOR, VOLUME = (4, 1, 64, 64), (4, 3, 64, 64), (2, 1, 32, 32, 32)
LARGE_IMAGE, LARGE_VOLUME = (2, 1, 128, 128), (2, 1, 64, 64, 64)


def cases() -> Iterator[Case]:
    for name, (task, shape, build) in _TABLE.items():
        yield Case("monai", name, task, partial(_build, shape, build))
    for name, (task, build, arguments) in _SPECIAL.items():
        yield Case("monai", name, task, partial(lambda b, a: (b(), a()), build, arguments))


def _build(shape: tuple[int, ...], build: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor]:
    return build(), synthetic(shape)


def _net(name: str, *args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    return partial(getattr(nets, name), *args, **kwargs)


WIDTHS = {"channels": (16, 32, 64, 128), "strides": (2, 2, 2)}
FEATURES = (16, 16, 32, 64, 128, 16)
KERNELS = {"kernel_size": (3, 3, 3, 3), "strides": (1, 2, 2, 2), "upsample_kernel_size": (2, 2, 2)}
CLASSIFIER = {"channels": (16, 32, 64, 128), "strides": (1, 2, 2, 2)}
LATENT = {
    "channels": (32, 64, 64),
    "attention_levels": (False, False, True),
    "num_res_blocks": 1,
    "norm_num_groups": 16,
}
RESNET = {"spatial_dims": 3, "n_input_channels": 1, "num_classes": 5}
DENSE = {"spatial_dims": 3, "in_channels": 1, "out_channels": 5}
SE = {"spatial_dims": 2, "in_channels": 3, "num_classes": 5}

_TABLE: dict[str, tuple[str, tuple[int, ...], Callable[[], nn.Module]]] = {
    "UNet-2d": ("u-net", IMAGE, _net("UNet", 2, 1, 3, **WIDTHS, num_res_units=2)),
    "UNet-3d": ("u-net", VOLUME, _net("UNet", 3, 1, 3, **WIDTHS, num_res_units=2)),
    "UNet-2d-plain-batch": ("u-net", IMAGE, _net("UNet", 2, 1, 3, **WIDTHS, norm="batch")),
    "UNet-3d-deep": ("u-net", VOLUME, _net("UNet", 3, 1, 2, (8, 16, 32, 64, 128), (2, 2, 2, 2), num_res_units=1)),
    "AttentionUnet-2d": ("u-net", IMAGE, _net("AttentionUnet", 2, 1, 3, **WIDTHS)),
    "AttentionUnet-3d": ("u-net", VOLUME, _net("AttentionUnet", 3, 1, 3, **WIDTHS)),
    "BasicUNet-2d": ("u-net", IMAGE, _net("BasicUNet", 2, 1, 3, FEATURES)),
    "BasicUNet-3d": ("u-net", VOLUME, _net("BasicUNet", 3, 1, 3, FEATURES)),
    "BasicUNet-3d-group": ("u-net", VOLUME, _net("BasicUNet", 3, 1, 3, FEATURES, norm=("group", {"num_groups": 4}))),
    "BasicUNetPlusPlus-2d": ("u-net", IMAGE, _net("BasicUNetPlusPlus", 2, 1, 3, FEATURES)),
    "DynUNet-2d": ("u-net", IMAGE, _net("DynUNet", 2, 1, 3, **KERNELS)),
    "DynUNet-3d": ("u-net", VOLUME, _net("DynUNet", 3, 1, 3, **KERNELS, filters=(16, 32, 64, 128))),
    "DynUNet-3d-res": (
        "u-net",
        VOLUME,
        _net("DynUNet", 3, 1, 3, **KERNELS, filters=(16, 32, 64, 128), res_block=True, norm_name="batch"),
    ),
    "DynUNet-3d-deep-supervision": (
        "u-net",
        VOLUME,
        _net("DynUNet", 3, 1, 3, **KERNELS, filters=(16, 32, 64, 128), deep_supervision=True),
    ),
    "SegResNet-2d": ("u-net", IMAGE, _net("SegResNet", 2, 16, 1, 3)),
    "SegResNet-3d": ("u-net", VOLUME, _net("SegResNet", 3, 8, 1, 3)),
    "SegResNetDS-3d": ("u-net", VOLUME, _net("SegResNetDS", 3, 8, 1, 3, blocks_down=(1, 2, 2), dsdepth=2)),
    "SegResNetDS2-3d": ("u-net", VOLUME, _net("SegResNetDS2", 3, 8, 1, 3, blocks_down=(1, 2, 2), norm="instance")),
    "SegResNetVAE-3d": ("u-net", VOLUME, _net("SegResNetVAE", (32, 32, 32), in_channels=1, out_channels=3)),
    "VNet-2d": ("u-net", IMAGE, _net("VNet", 2, 1, 3, dropout_dim=2)),
    "VNet-3d": ("u-net", VOLUME, _net("VNet", 3, 1, 3)),
    "AHNet-2d": ("u-net", LARGE_IMAGE, _net("AHNet", spatial_dims=2, upsample_mode="bilinear")),
    "AHNet-3d": (
        "u-net",
        (1, 1, 128, 128, 32),
        _net("AHNet", spatial_dims=3, psp_block_num=0, upsample_mode="trilinear"),
    ),
    "DAF3D": ("u-net", (1, 1, 32, 32, 32), _net("DAF3D", 1, 2)),
    "HighResNet-3d": ("segmentation", (2, 1, 16, 16, 16), _net("HighResNet", 3, 1, 3)),
    "HoVerNet": ("segmentation", (1, 3, 256, 256), _net("HoVerNet", out_classes=3)),
    "FlexibleUNet-efficientnet-b0": ("u-net", COLOR, _net("FlexibleUNet", 3, 3, "efficientnet-b0")),
    "FlexibleUNet-resnet18": ("u-net", COLOR, _net("FlexibleUNet", 3, 3, "resnet18")),
    "MedNeXt-2d": ("u-net", IMAGE, _net("MedNeXt", 2, 16, 1, 3, kernel_size=3)),
    "MedNeXt-3d": ("u-net", VOLUME, _net("MedNeXt", 3, 8, 1, 3, kernel_size=3)),
    "Quicknat": ("u-net", IMAGE, _net("Quicknat", 4, 1, 32)),
    "UNETR-3d": (
        "u-net",
        VOLUME,
        _net("UNETR", 1, 3, (32, 32, 32), feature_size=8, hidden_size=48, mlp_dim=96, num_heads=4),
    ),
    "SwinUNETR-3d": ("u-net", (1, 1, 64, 64, 64), _net("SwinUNETR", 1, 3, feature_size=12)),
    "RegUNet-3d": ("registration", VOLUME, _net("RegUNet", 3, 1, 8, 3)),
    "LocalNet-3d": ("registration", VOLUME, _net("LocalNet", 3, 1, 8, (0, 1, 2, 3))),
    "GlobalNet-3d": ("registration", (2, 1, 32, 32, 32), _net("GlobalNet", [32, 32, 32], 3, 1, 8, 3)),
    "AutoEncoder-2d": ("autoencoder", IMAGE, _net("AutoEncoder", 2, 1, 1, (8, 16, 32), (2, 2, 2), num_res_units=2)),
    "VarAutoEncoder-2d": ("autoencoder", IMAGE, _net("VarAutoEncoder", 2, (1, 64, 64), 1, 8, (8, 16, 32), (2, 2, 2))),
    "VQVAE-2d": ("autoencoder", IMAGE, _net("VQVAE", 2, 1, 1, ddp_sync=False)),
    "AutoencoderKL-2d": ("autoencoder", IMAGE, _net("AutoencoderKL", 2, **LATENT)),
    "AutoencoderKL-3d": ("autoencoder", (1, 1, 16, 16, 16), _net("AutoencoderKL", 3, **LATENT)),
    "Classifier-2d": ("classification", IMAGE, _net("Classifier", (1, 64, 64), 5, **CLASSIFIER)),
    "Regressor-2d": ("classification", IMAGE, _net("Regressor", (1, 64, 64), (1,), **CLASSIFIER)),
    "Discriminator-2d": ("gan", IMAGE, _net("Discriminator", (1, 64, 64), **CLASSIFIER)),
    "Critic-2d": ("gan", IMAGE, _net("Critic", (1, 64, 64), **CLASSIFIER)),
    "Generator-2d": ("gan", (4, 16), _net("Generator", (16,), (64, 4, 4), (64, 32, 16, 1), (2, 2, 2, 1))),
    "PatchDiscriminator-2d": ("gan", IMAGE, _net("PatchDiscriminator", 2, 16, 1)),
    "MultiScalePatchDiscriminator-2d": (
        "gan",
        IMAGE,
        _net("MultiScalePatchDiscriminator", 2, 2, 2, 16, 1, minimum_size_im=64),
    ),
    "DenseNet121-3d": ("classification", VOLUME, _net("DenseNet121", **DENSE)),
    "DenseNet169-2d": ("classification", COLOR, _net("DenseNet169", spatial_dims=2, in_channels=3, out_channels=5)),
    "resnet10-3d": ("classification", VOLUME, _net("resnet10", **RESNET)),
    "resnet18-3d": ("classification", VOLUME, _net("resnet18", **RESNET)),
    "resnet50-2d": ("classification", COLOR, _net("resnet50", spatial_dims=2, n_input_channels=3, num_classes=5)),
    "SEResNet50-2d": ("classification", COLOR, _net("SEResNet50", **SE)),
    "SEResNext50-2d": ("classification", COLOR, _net("SEResNext50", **SE)),
    "SENet154-2d": ("classification", (2, 3, 64, 64), _net("SENet154", **SE)),
    "EfficientNetBN-b0-2d": ("classification", COLOR, _net("EfficientNetBN", "efficientnet-b0", False, num_classes=5)),
    "EfficientNetBN-b0-3d": (
        "classification",
        VOLUME,
        _net("EfficientNetBN", "efficientnet-b0", False, spatial_dims=3, in_channels=1, num_classes=5),
    ),
    "MILModel": (
        "classification",
        (2, 3, 3, 64, 64),
        _net("MILModel", 3, "att", pretrained=False),
    ),
    "TorchVisionFCModel-resnet18": (
        "classification",
        COLOR,
        _net("TorchVisionFCModel", "resnet18", 5, pool=("adaptiveavg", {"output_size": (1, 1)}), bias=True),
    ),
}


def _time() -> Tensor:
    return torch.tensor([10, 400])


def _labels() -> Tensor:
    return torch.nn.functional.one_hot(torch.arange(32 * 32).reshape(1, 32, 32) % 4, 4).permute(0, 3, 1, 2).float()


def _diffusion() -> dict[str, Any]:
    return {"x": synthetic((2, 1, 32, 32)), "timesteps": _time()}


def _dints() -> nn.Module:
    grid = TopologyInstance(
        arch_code=[np.ones((2, 7)), np.ones((2, 7), dtype=int)],
        num_blocks=2,
        num_depths=3,
        use_downsample=True,
        spatial_dims=3,
    )
    network: nn.Module = DiNTS(grid, 1, 3, spatial_dims=3)
    return network


_SPECIAL: dict[str, tuple[str, Callable[[], nn.Module], Callable[[], Any]]] = {
    "DiffusionModelUNet-2d": ("diffusion", _net("DiffusionModelUNet", 2, 1, 1, **LATENT), _diffusion),
    "ControlNet-2d": (
        "diffusion",
        _net("ControlNet", 2, 1, **LATENT),
        lambda: _diffusion() | {"controlnet_cond": synthetic((2, 1, 256, 256))},
    ),
    "SPADEDiffusionModelUNet-2d": (
        "diffusion",
        _net("SPADEDiffusionModelUNet", 2, 1, 1, 4, **LATENT, spade_intermediate_channels=16),
        lambda: _diffusion() | {"seg": _labels().expand(2, 4, 32, 32).clone()},
    ),
    "SPADEAutoencoderKL-2d": (
        "autoencoder",
        _net("SPADEAutoencoderKL", 2, 4, **LATENT, spade_intermediate_channels=16),
        lambda: (synthetic((2, 1, 32, 32)), _labels().expand(2, 4, 32, 32).clone()),
    ),
    "SPADENet-2d": (
        "autoencoder",
        _net("SPADENet", 2, 1, 1, 4, (32, 32), [16, 32, 64], z_dim=8, spade_intermediate_channels=16),
        lambda: (_labels().expand(2, 4, 32, 32).clone(), synthetic((2, 1, 32, 32))),
    ),
    "DiNTS-3d": ("u-net", _dints, lambda: synthetic((1, 1, 32, 32, 32))),
    "VoxelMorph-3d": (
        "registration",
        _net("VoxelMorph", integration_steps=2),
        lambda: (synthetic((1, 1, 32, 32, 32)), synthetic((1, 1, 32, 32, 32), seed=1)),
    ),
}
