"""The convolutional networks of diffusers, from small configurations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import diffusers
import torch
from torch import nn

from idealgroups.synthetic import synthetic

from . import Case


def cases() -> Iterator[Case]:
    for name, (task, config, inputs) in _TABLE.items():
        yield Case("diffusers", name, task, partial(_build, name.partition("-")[0], config, inputs))


def _build(name: str, config: dict[str, Any], inputs: Callable[[], Any]) -> tuple[nn.Module, Any]:
    return getattr(diffusers, name)(**config), inputs()


def _time() -> torch.Tensor:
    return torch.tensor([10, 400])


def _words(width: int, length: int = 4, batch: int = 2) -> torch.Tensor:
    return synthetic((batch, length, width), "noise", 1)


def _image(*shape: int) -> Callable[[], torch.Tensor]:
    return partial(synthetic, shape)


def _sample(*shape: int, **more: Any) -> Callable[[], dict[str, Any]]:
    def inputs() -> dict[str, Any]:
        made = {key: value() if callable(value) else value for key, value in more.items()}
        return {"sample": synthetic(shape), "timestep": _time(), **made}

    return inputs


TWO = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
CROSS = {**TWO, "cross_attention_dim": 32, "attention_head_dim": 8}
LATENT = {**TWO, "latent_channels": 4}
DOWN_UP = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
words32 = partial(_words, 32)
frames32 = partial(_words, 32, batch=8)


def _both(kind: str, number: int = 2) -> dict[str, tuple[str, ...]]:
    up = kind.replace("Down", "Up").replace("Encoder", "Decoder")
    return {"down_block_types": (kind,) * number, "up_block_types": (up,) * number}


_TABLE: dict[str, tuple[str, dict[str, Any], Callable[[], Any]]] = {
    "UNet1DModel": (
        "u-net",
        {
            "sample_size": 256,
            "block_out_channels": (32, 32, 64),
            "in_channels": 2,
            "extra_in_channels": 16,
            "time_embedding_dim": 16,
        },
        _sample(2, 2, 256),
    ),
    "UNet1DModel-resnet": (
        "u-net",
        {
            "in_channels": 8,
            "out_channels": 8,
            "block_out_channels": (32, 64, 128),
            "time_embedding_type": "positional",
            "use_timestep_embedding": True,
            "down_block_types": ("DownResnetBlock1D",) * 3,
            "up_block_types": ("UpResnetBlock1D",) * 2,
            "mid_block_type": "MidResTemporalBlock1D",
            "out_block_type": "OutConv1DBlock",
            "act_fn": "swish",
            "downsample_each_block": False,
        },
        _sample(2, 8, 32),
    ),
    "UNet2DModel": (
        "u-net",
        {
            **TWO,
            "attention_head_dim": 8,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        },
        _sample(2, 3, 32, 32),
    ),
    "UNet2DModel-ddpm": (
        "u-net",
        {
            "block_out_channels": (32, 32, 64, 64),
            "layers_per_block": 2,
            "norm_num_groups": 32,
            "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        },
        _sample(2, 3, 32, 32),
    ),
    "UNet2DModel-scale-shift": (
        "u-net",
        {
            **TWO,
            "attention_head_dim": 8,
            "resnet_time_scale_shift": "scale_shift",
            "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        },
        _sample(2, 3, 32, 32),
    ),
    "UNet2DModel-skip": (
        "u-net",
        {
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "norm_num_groups": None,
            "attention_head_dim": 8,
            "time_embedding_type": "fourier",
            "mid_block_scale_factor": 1.4,
            "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
            "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
        },
        _sample(2, 3, 32, 32),
    ),
    "UNet2DConditionModel": (
        "u-net",
        {**CROSS, **DOWN_UP},
        _sample(2, 4, 16, 16, encoder_hidden_states=words32),
    ),
    "UNet2DConditionModel-simple": (
        "u-net",
        {
            **CROSS,
            "down_block_types": ("DownBlock2D", "SimpleCrossAttnDownBlock2D"),
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "up_block_types": ("SimpleCrossAttnUpBlock2D", "UpBlock2D"),
        },
        _sample(2, 4, 16, 16, encoder_hidden_states=words32),
    ),
    "UNet3DConditionModel": (
        "u-net",
        {
            **CROSS,
            "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        },
        _sample(2, 4, 4, 16, 16, encoder_hidden_states=words32),
    ),
    "UNetMotionModel": (
        "u-net",
        {
            **TWO,
            "cross_attention_dim": 32,
            "num_attention_heads": 4,
            "motion_num_attention_heads": 4,
            "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
            "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
        },
        _sample(2, 4, 4, 16, 16, encoder_hidden_states=frames32),
    ),
    "UNetSpatioTemporalConditionModel": (
        "u-net",
        {
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "cross_attention_dim": 32,
            "num_attention_heads": 4,
            "projection_class_embeddings_input_dim": 32,
            "addition_time_embed_dim": 32,
            "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        },
        _sample(2, 2, 8, 16, 16, encoder_hidden_states=partial(_words, 32, 1), added_time_ids=lambda: torch.ones(2, 1)),
    ),
    "Kandinsky3UNet": (
        "u-net",
        {
            "time_embedding_dim": 32,
            "groups": 8,
            "attention_head_dim": 8,
            "layers_per_block": 2,
            "block_out_channels": (32, 64, 64, 64),
            "cross_attention_dim": 32,
            "encoder_hid_dim": 32,
        },
        _sample(2, 4, 16, 16, encoder_hidden_states=words32, encoder_attention_mask=lambda: torch.ones(2, 4)),
    ),
    "I2VGenXLUNet": (
        "u-net",
        {
            **TWO,
            "cross_attention_dim": 32,
            "attention_head_dim": 8,
            "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        },
        _sample(
            2,
            4,
            4,
            16,
            16,
            fps=lambda: torch.tensor([4, 4]),
            image_latents=_image(2, 4, 4, 16, 16),
            image_embeddings=lambda: synthetic((2, 32), "noise"),
            encoder_hidden_states=words32,
        ),
    ),
    "AudioLDM2UNet2DConditionModel": (
        "u-net",
        {**TWO, **DOWN_UP, "cross_attention_dim": (32, 32), "attention_head_dim": 8},
        _sample(2, 4, 16, 16, encoder_hidden_states=words32),
    ),
    "ControlNetModel": (
        "u-net",
        {
            **CROSS,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "conditioning_embedding_out_channels": (16, 32),
        },
        _sample(2, 4, 16, 16, encoder_hidden_states=words32, controlnet_cond=_image(2, 3, 32, 32)),
    ),
    "SparseControlNetModel": (
        "u-net",
        {
            **CROSS,
            "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
            "motion_num_attention_heads": 4,
        },
        _sample(
            2,
            4,
            4,
            16,
            16,
            encoder_hidden_states=frames32,
            controlnet_cond=_image(2, 4, 4, 16, 16),
            conditioning_mask=_image(2, 1, 4, 16, 16),
        ),
    ),
    "UNetControlNetXSModel": (
        "u-net",
        {
            **DOWN_UP,
            "block_out_channels": (32, 64),
            "norm_num_groups": 8,
            "sample_size": 16,
            "cross_attention_dim": 32,
            "num_attention_heads": 4,
            "ctrl_block_out_channels": (8, 16),
            "ctrl_conditioning_embedding_out_channels": (4, 8),
            "ctrl_max_norm_num_groups": 4,
            "ctrl_num_attention_heads": 4,
        },
        _sample(
            2,
            4,
            16,
            16,
            encoder_hidden_states=words32,
            controlnet_cond=_image(2, 3, 32, 32),
            conditioning_scale=1.0,
        ),
    ),
    "DreamLiteUNetModel": (
        "u-net",
        {
            **CROSS,
            "down_block_types": ("DreamLiteCrossAttnNoSelfAttnDownBlock2D", "DreamLiteCrossAttnDownBlock2D"),
            "up_block_types": ("DreamLiteCrossAttnUpBlock2D", "DreamLiteUpBlock2D"),
        },
        _sample(2, 4, 16, 16, encoder_hidden_states=words32),
    ),
    "UVit2DModel": (
        "transformer",
        {
            "hidden_size": 32,
            "cond_embed_dim": 32,
            "micro_cond_encode_dim": 2,
            "micro_cond_embed_dim": 10,
            "encoder_hidden_size": 32,
            "vocab_size": 32,
            "codebook_size": 32,
            "in_channels": 32,
            "block_out_channels": 32,
            "num_res_blocks": 1,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 32,
            "block_num_heads": 4,
            "sample_size": 8,
        },
        lambda: {
            "input_ids": torch.arange(128).reshape(2, 8, 8) % 32,
            "encoder_hidden_states": words32(),
            "pooled_text_emb": synthetic((2, 32), "noise"),
            "micro_conds": torch.ones(2, 5),
        },
    ),
    "AutoencoderKL": ("autoencoder", {**LATENT, **_both("DownEncoderBlock2D")}, _image(2, 3, 32, 32)),
    "AutoencoderKL-deep": (
        "autoencoder",
        {
            **_both("DownEncoderBlock2D", 4),
            "block_out_channels": (32, 64, 64, 64),
            "layers_per_block": 2,
            "latent_channels": 4,
        },
        _image(2, 3, 32, 32),
    ),
    "AsymmetricAutoencoderKL": (
        "autoencoder",
        {
            **_both("DownEncoderBlock2D"),
            "down_block_out_channels": (32, 64),
            "up_block_out_channels": (32, 64),
            "norm_num_groups": 8,
        },
        _image(2, 3, 32, 32),
    ),
    "AutoencoderKLTemporalDecoder": (
        "autoencoder",
        {"block_out_channels": (32, 64), "down_block_types": ("DownEncoderBlock2D",) * 2, "layers_per_block": 1},
        lambda: {"sample": synthetic((2, 3, 32, 32)), "num_frames": 2},
    ),
    "ConsistencyDecoderVAE": (
        "autoencoder",
        {
            "encoder_block_out_channels": (32, 64),
            "encoder_down_block_types": ("DownEncoderBlock2D",) * 2,
            "encoder_layers_per_block": 1,
            "encoder_norm_num_groups": 8,
            "decoder_block_out_channels": (32, 64),
            "decoder_down_block_types": ("ResnetDownsampleBlock2D",) * 2,
            "decoder_up_block_types": ("ResnetUpsampleBlock2D",) * 2,
            "decoder_layers_per_block": 1,
            "decoder_norm_num_groups": 8,
        },
        _image(2, 3, 32, 32),
    ),
    "VQModel": ("autoencoder", {**TWO, **_both("DownEncoderBlock2D"), "latent_channels": 3}, _image(2, 3, 32, 32)),
    "VQModel-spatial": (
        "autoencoder",
        {**TWO, **_both("DownEncoderBlock2D"), "norm_type": "spatial"},
        _image(2, 3, 32, 32),
    ),
    "AutoencoderTiny": (
        "autoencoder",
        {
            "encoder_block_out_channels": (32, 32),
            "decoder_block_out_channels": (32, 32),
            "num_encoder_blocks": (1, 2),
            "num_decoder_blocks": (2, 1),
        },
        _image(2, 3, 32, 32),
    ),
    "AutoencoderDC": (
        "autoencoder",
        {
            "latent_channels": 4,
            "attention_head_dim": 8,
            "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "encoder_block_out_channels": (16, 32),
            "decoder_block_out_channels": (16, 32),
            "encoder_layers_per_block": (1, 1),
            "decoder_layers_per_block": (1, 1),
            "encoder_qkv_multiscales": ((), (5,)),
            "decoder_qkv_multiscales": ((), (5,)),
            "decoder_norm_types": ["batch_norm", "rms_norm"],
            "decoder_act_fns": ["relu", "silu"],
        },
        _image(2, 3, 32, 32),
    ),
    "AutoencoderKLFlux2": ("autoencoder", {**TWO, **_both("DownEncoderBlock2D")}, _image(2, 3, 32, 32)),
    "AutoencoderKLKVAE": (
        "autoencoder",
        {"channels": 32, "ch_mult": (1, 2), "num_enc_blocks": 1, "num_dec_blocks": 1, "z_channels": 4},
        _image(2, 3, 32, 32),
    ),
    "AutoencoderKLHunyuanImage": (
        "autoencoder",
        {
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 16,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "spatial_compression_ratio": 2,
            "sample_size": 32,
        },
        _image(2, 3, 32, 32),
    ),
    "AutoencoderKLMagvit": (
        "autoencoder",
        {
            **LATENT,
            "down_block_types": ("SpatialDownBlock3D", "SpatialTemporalDownBlock3D"),
            "up_block_types": ("SpatialUpBlock3D", "SpatialTemporalUpBlock3D"),
        },
        _image(1, 3, 5, 32, 32),
    ),
    "AutoencoderKLCogVideoX": (
        "autoencoder",
        {**LATENT, **_both("CogVideoXDownBlock3D"), "temporal_compression_ratio": 2},
        _image(1, 3, 5, 32, 32),
    ),
    "AutoencoderKLHunyuanVideo": (
        "autoencoder",
        {
            **LATENT,
            **_both("HunyuanVideoDownBlock3D", 2),
            "spatial_compression_ratio": 2,
            "temporal_compression_ratio": 4,
        },
        _image(1, 3, 5, 32, 32),
    ),
    "AutoencoderKLMochi": (
        "autoencoder",
        {
            "latent_channels": 4,
            "encoder_block_out_channels": (32, 32, 32, 32),
            "decoder_block_out_channels": (32, 32, 32, 32),
            "layers_per_block": (1, 1, 1, 1, 1),
        },
        _image(1, 3, 7, 16, 16),
    ),
    "AutoencoderKLKVAEVideo": (
        "autoencoder",
        {"ch": 32, "ch_mult": (1, 2), "num_res_blocks": 1, "z_channels": 4, "temporal_compress_times": 2},
        _image(1, 3, 5, 32, 32),
    ),
    "AutoencoderVidTok": (
        "autoencoder",
        {"ch": 32, "ch_mult": [1, 2, 2, 2], "num_res_blocks": 1, "is_causal": False},
        _image(1, 3, 16, 32, 32),
    ),
    "AutoencoderKLLTX2Audio": (
        "autoencoder",
        {"base_channels": 32, "ch_mult": (1, 2), "num_res_blocks": 1, "norm_type": "group", "causality_axis": "none"},
        _image(1, 2, 32, 64),
    ),
}
