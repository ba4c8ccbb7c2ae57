"""Vision, detection and audio models of transformers that have batch or group norms, from small configurations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import transformers
from torch import nn

from idealgroups.synthetic import synthetic

from . import Case


def cases() -> Iterator[Case]:
    for name, (task, model, config, inputs) in _TABLE.items():
        yield Case("transformers", name, task, partial(_build, model, config, inputs))


def _build(model: str, config: Callable[[], Any], inputs: Callable[[], Any]) -> tuple[nn.Module, Any]:
    return getattr(transformers, model)(config()), inputs()


def _config(name: str, /, **values: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, f"{name}Config")(**{k: v() if callable(v) else v for k, v in values.items()})


def _pixels(*shape: int, **more: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"pixel_values": synthetic(shape), **{key: value() for key, value in more.items()}}


def _sound(samples: int = 3200) -> dict[str, Any]:
    return {"input_values": synthetic((2, samples))}


IMAGE = _pixels(4, 3, 64, 64)
RESNET = _config(
    "ResNet",
    embedding_size=32,
    hidden_sizes=[32, 64, 128, 256],
    depths=[2, 2, 2, 2],
    layer_type="basic",
    out_features=["stage2", "stage3", "stage4"],
)
TINY = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
DETR = {**TINY, **HEADS, "num_queries": 8, "use_timm_backbone": False, "use_pretrained_backbone": False}
LARGE = _pixels(2, 3, 96, 96)
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
}
SPEECH = {**TEXT, "conv_dim": (64,) * 7}
SEW = {
    **TEXT,
    "conv_dim": (32, 64, 64, 64, 64),
    "conv_stride": (5, 2, 1, 2, 1),
    "conv_kernel": (10, 3, 1, 3, 1),
    "feat_extract_norm": "group",
}
LOGITS = "ForImageClassification"

_TABLE: dict[str, tuple[str, str, Callable[[], Any], Callable[[], Any]]] = {
    "ResNet-basic": (
        "classification",
        "ResNet" + LOGITS,
        _config("ResNet", embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[2] * 4, layer_type="basic"),
        IMAGE,
    ),
    "ResNet-50": ("classification", "ResNet" + LOGITS, _config("ResNet"), LARGE),
    "RegNet": (
        "classification",
        "RegNet" + LOGITS,
        _config("RegNet", hidden_sizes=[32, 64, 160, 384], depths=[1, 2, 4, 2], groups_width=16),
        IMAGE,
    ),
    "MobileNetV1": ("classification", "MobileNetV1" + LOGITS, _config("MobileNetV1"), LARGE),
    "MobileNetV2": ("classification", "MobileNetV2" + LOGITS, _config("MobileNetV2"), LARGE),
    "MobileNetV2-segmentation": (
        "segmentation",
        "MobileNetV2ForSemanticSegmentation",
        _config("MobileNetV2", output_stride=16),
        LARGE,
    ),
    "MobileViT": ("classification", "MobileViT" + LOGITS, _config("MobileViT"), LARGE),
    "MobileViT-segmentation": ("segmentation", "MobileViTForSemanticSegmentation", _config("MobileViT"), LARGE),
    "MobileViTV2": ("classification", "MobileViTV2" + LOGITS, _config("MobileViTV2", width_multiplier=0.5), LARGE),
    "MobileViTV2-segmentation": (
        "segmentation",
        "MobileViTV2ForSemanticSegmentation",
        _config("MobileViTV2", width_multiplier=0.5, output_stride=16),
        LARGE,
    ),
    "Bit": (
        "classification",
        "Bit" + LOGITS,
        _config("Bit", embedding_size=32, hidden_sizes=[64, 128, 256, 512], depths=[1, 2, 2, 1], num_groups=8),
        IMAGE,
    ),
    "Bit-bottleneck": (
        "classification",
        "Bit" + LOGITS,
        _config(
            "Bit",
            embedding_size=32,
            hidden_sizes=[64, 128, 256, 512],
            depths=[1, 2, 2, 1],
            num_groups=8,
            layer_type="bottleneck",
        ),
        IMAGE,
    ),
    "LeViT": (
        "classification",
        "Levit" + LOGITS,
        _config("Levit", hidden_sizes=[64, 96, 128], depths=[2, 2, 2], image_size=224),
        _pixels(2, 3, 224, 224),
    ),
    "PoolFormer": (
        "classification",
        "PoolFormer" + LOGITS,
        _config("PoolFormer", hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 2, 1]),
        IMAGE,
    ),
    "CvT": (
        "classification",
        "Cvt" + LOGITS,
        _config("Cvt", embed_dim=[16, 48, 96], depth=[1, 2, 3], num_heads=[1, 3, 6], drop_path_rate=[0.0, 0.0, 0.0]),
        IMAGE,
    ),
    "EfficientNet": (
        "classification",
        "EfficientNet" + LOGITS,
        _config("EfficientNet", width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, drop_connect_rate=0.0),
        LARGE,
    ),
    "SwiftFormer": (
        "classification",
        "SwiftFormer" + LOGITS,
        _config("SwiftFormer", depths=[1, 1, 2, 1], embed_dims=[16, 32, 64, 128]),
        IMAGE,
    ),
    "TextNet": (
        "classification",
        "TextNet" + LOGITS,
        _config("TextNet", hidden_sizes=[16, 16, 32, 64, 128], stem_out_channels=16, image_size=[64, 64]),
        IMAGE,
    ),
    "HGNetV2": (
        "classification",
        "HGNetV2" + LOGITS,
        _config(
            "HGNetV2",
            stem_channels=[3, 16, 24],
            stage_in_channels=[24, 64, 128, 256],
            stage_mid_channels=[16, 32, 48, 64],
            stage_out_channels=[64, 128, 256, 512],
            hidden_sizes=[64, 128, 256, 512],
            stage_num_blocks=[1, 1, 1, 1],
            stage_numb_of_layers=[3, 3, 3, 3],
            embedding_size=24,
        ),
        IMAGE,
    ),
    "Data2VecVision-segmentation": (
        "segmentation",
        "Data2VecVisionForSemanticSegmentation",
        _config(
            "Data2VecVision",
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=64,
            image_size=64,
            patch_size=8,
            out_indices=[0, 1, 2, 3],
            pool_scales=[1, 2, 3, 6],
        ),
        IMAGE,
    ),
    "BEiT-segmentation": (
        "segmentation",
        "BeitForSemanticSegmentation",
        _config(
            "Beit",
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=64,
            image_size=64,
            patch_size=8,
            out_indices=[1, 2, 3, 4],
        ),
        IMAGE,
    ),
    "SegFormer": (
        "segmentation",
        "SegformerForSemanticSegmentation",
        _config(
            "Segformer", hidden_sizes=[16, 32, 40, 64], depths=[1, 1, 1, 1], decoder_hidden_size=64, drop_path_rate=0.0
        ),
        IMAGE,
    ),
    "UPerNet-ResNet": (
        "segmentation",
        "UperNetForSemanticSegmentation",
        _config(
            "UperNet",
            backbone_config=_config(
                "ResNet",
                embedding_size=32,
                hidden_sizes=[32, 64, 128, 256],
                depths=[1] * 4,
                layer_type="basic",
                out_features=["stage1", "stage2", "stage3", "stage4"],
            ),
            hidden_size=64,
            auxiliary_channels=32,
            auxiliary_in_channels=128,
            num_labels=5,
        ),
        IMAGE,
    ),
    "UPerNet-Swin": (
        "segmentation",
        "UperNetForSemanticSegmentation",
        _config(
            "UperNet",
            backbone_config=_config(
                "Swin",
                image_size=64,
                embed_dim=24,
                depths=[1] * 4,
                num_heads=[1, 2, 4, 8],
                window_size=2,
                out_features=["stage1", "stage2", "stage3", "stage4"],
            ),
            hidden_size=64,
            auxiliary_channels=32,
            auxiliary_in_channels=96,
            num_labels=5,
        ),
        IMAGE,
    ),
    "DPT-segmentation": (
        "segmentation",
        "DPTForSemanticSegmentation",
        _config(
            "DPT",
            image_size=64,
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=64,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[16, 32, 64, 64],
            fusion_hidden_size=32,
            use_batch_norm_in_fusion_residual=True,
        ),
        IMAGE,
    ),
    "DPT-depth": (
        "segmentation",
        "DPTForDepthEstimation",
        _config(
            "DPT",
            image_size=64,
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=64,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[16, 32, 64, 64],
            fusion_hidden_size=32,
            use_batch_norm_in_fusion_residual=True,
        ),
        IMAGE,
    ),
    "VitMatte": (
        "segmentation",
        "VitMatteForImageMatting",
        _config(
            "VitMatte",
            backbone_config=_config(
                "VitDet",
                hidden_size=32,
                image_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_channels=4,
                out_features=["stage2"],
            ),
            hidden_size=32,
            fusion_hidden_sizes=[32, 16, 16, 8],
        ),
        _pixels(2, 4, 64, 64),
    ),
    "ViTPose": (
        "pose",
        "VitPoseForPoseEstimation",
        _config(
            "VitPose",
            backbone_config=_config(
                "VitPoseBackbone",
                image_size=[64, 64],
                patch_size=[16, 16],
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
            ),
            use_simple_decoder=False,
            num_labels=17,
        ),
        IMAGE,
    ),
    "GLPN": (
        "segmentation",
        "GLPNForDepthEstimation",
        _config("GLPN", hidden_sizes=[16, 32, 40, 64], depths=[1] * 4, decoder_hidden_size=16, drop_path_rate=0.0),
        IMAGE,
    ),
    "DETR": ("detection", "DetrForObjectDetection", _config("Detr", **DETR, backbone_config=RESNET), LARGE),
    "ConditionalDETR": (
        "detection",
        "ConditionalDetrForObjectDetection",
        _config("ConditionalDetr", **DETR, backbone_config=RESNET),
        LARGE,
    ),
    "DAB-DETR": (
        "detection",
        "DabDetrForObjectDetection",
        _config(
            "DabDetr",
            hidden_size=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            **HEADS,
            num_queries=8,
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone_config=RESNET,
        ),
        LARGE,
    ),
    "DeformableDETR": (
        "detection",
        "DeformableDetrForObjectDetection",
        _config("DeformableDetr", **{**DETR, "decoder_layers": 2}, backbone_config=RESNET),
        LARGE,
    ),
    "TableTransformer": (
        "detection",
        "TableTransformerForObjectDetection",
        _config("TableTransformer", **DETR, backbone_config=RESNET),
        LARGE,
    ),
    "RT-DETR": (
        "detection",
        "RTDetrForObjectDetection",
        _config(
            "RTDetr",
            backbone_config=_config(
                "RTDetrResNet",
                embedding_size=16,
                hidden_sizes=[16, 32, 64, 128],
                depths=[1, 1, 1, 1],
                layer_type="basic",
                out_features=["stage2", "stage3", "stage4"],
            ),
            encoder_in_channels=[32, 64, 128],
            encoder_hidden_dim=32,
            d_model=32,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            decoder_layers=2,
            decoder_in_channels=[32, 32, 32],
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            num_queries=8,
            num_denoising=0,
        ),
        LARGE,
    ),
    "D-FINE": (
        "detection",
        "DFineForObjectDetection",
        _config(
            "DFine",
            backbone_config=_config(
                "HGNetV2",
                stem_channels=[3, 16, 16],
                stage_in_channels=[16, 32, 32, 64],
                stage_mid_channels=[16, 16, 32, 32],
                stage_out_channels=[32, 32, 64, 128],
                stage_num_blocks=[1, 1, 1, 1],
                stage_numb_of_layers=[2, 2, 2, 2],
                hidden_sizes=[32, 32, 64, 128],
                embedding_size=16,
                out_features=["stage2", "stage3", "stage4"],
            ),
            encoder_in_channels=[32, 64, 128],
            encoder_hidden_dim=32,
            d_model=32,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            decoder_layers=2,
            decoder_in_channels=[32, 32, 32],
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            num_queries=8,
            num_denoising=0,
        ),
        LARGE,
    ),
    "MaskFormer": (
        "segmentation",
        "MaskFormerForInstanceSegmentation",
        _config(
            "MaskFormer",
            backbone_config=_config(
                "ResNet",
                embedding_size=16,
                hidden_sizes=[16, 32, 64, 128],
                depths=[1] * 4,
                layer_type="basic",
                out_features=["stage1", "stage2", "stage3", "stage4"],
            ),
            decoder_config=_config("Detr", **TINY, **HEADS, num_queries=8, use_timm_backbone=False),
            fpn_feature_size=32,
            mask_feature_size=32,
        ),
        LARGE,
    ),
    "Wav2Vec2": ("audio", "Wav2Vec2Model", _config("Wav2Vec2", **SPEECH), _sound),
    "Wav2Vec2-ctc": ("audio", "Wav2Vec2ForCTC", _config("Wav2Vec2", **SPEECH), _sound),
    "Wav2Vec2Conformer": (
        "audio",
        "Wav2Vec2ConformerModel",
        _config("Wav2Vec2Conformer", **SPEECH, conv_depthwise_kernel_size=7),
        _sound,
    ),
    "HuBERT": ("audio", "HubertModel", _config("Hubert", **SPEECH), _sound),
    "HuBERT-batch-norm": ("audio", "HubertModel", _config("Hubert", **SPEECH, conv_pos_batch_norm=True), _sound),
    "UniSpeech": ("audio", "UniSpeechModel", _config("UniSpeech", **SPEECH), _sound),
    "UniSpeechSat": ("audio", "UniSpeechSatModel", _config("UniSpeechSat", **SPEECH), _sound),
    "WavLM": ("audio", "WavLMModel", _config("WavLM", **SPEECH), _sound),
    "Data2VecAudio": ("audio", "Data2VecAudioModel", _config("Data2VecAudio", **SPEECH), _sound),
    "SEW": ("audio", "SEWModel", _config("SEW", **SEW), _sound),
    "EnCodec": (
        "audio",
        "EncodecModel",
        _config(
            "Encodec", num_filters=8, hidden_size=32, codebook_dim=32, codebook_size=64, norm_type="time_group_norm"
        ),
        lambda: {"input_values": synthetic((1, 1, 2400))},
    ),
    "FastSpeech2Conformer": (
        "audio",
        "FastSpeech2ConformerModel",
        _config(
            "FastSpeech2Conformer",
            hidden_size=32,
            vocab_size=32,
            num_mel_bins=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_num_attention_heads=2,
            decoder_num_attention_heads=2,
            encoder_linear_units=64,
            decoder_linear_units=64,
            speech_decoder_postnet_units=32,
            duration_predictor_channels=32,
            energy_predictor_channels=32,
            pitch_predictor_channels=32,
        ),
        lambda: {
            "input_ids": torch.arange(24).reshape(2, 12) % 32,
            "duration_labels": torch.ones(2, 12, dtype=torch.long),
            "pitch_labels": synthetic((2, 12, 1)),
            "energy_labels": synthetic((2, 12, 1)),
            "spectrogram_labels": synthetic((2, 12, 16)),
        },
    ),
    "Parakeet": (
        "audio",
        "ParakeetEncoder",
        _config(
            "ParakeetEncoder",
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            num_mel_bins=16,
            subsampling_conv_channels=16,
        ),
        lambda: {"input_features": synthetic((2, 64, 16))},
    ),
    "PatchTST": (
        "time series",
        "PatchTSTForPrediction",
        _config(
            "PatchTST",
            num_input_channels=2,
            context_length=32,
            patch_length=4,
            patch_stride=4,
            d_model=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=64,
            prediction_length=4,
            norm_type="batchnorm",
        ),
        lambda: {"past_values": synthetic((4, 32, 2))},
    ),
    "Informer-distil": (
        "time series",
        "InformerModel",
        _config(
            "Informer",
            prediction_length=4,
            context_length=16,
            lags_sequence=[1, 2],
            num_time_features=1,
            d_model=32,
            encoder_layers=2,
            decoder_layers=1,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
        ),
        lambda: {
            "past_values": synthetic((4, 18)),
            "past_time_features": synthetic((4, 18, 1)),
            "past_observed_mask": torch.ones(4, 18),
            "future_values": synthetic((4, 4)),
            "future_time_features": synthetic((4, 4, 1)),
        },
    ),
    "Perceiver-conv": (
        "classification",
        "PerceiverForImageClassificationConvProcessing",
        _config(
            "Perceiver",
            num_latents=8,
            d_latents=32,
            num_blocks=1,
            num_self_attends_per_block=1,
            num_self_attention_heads=4,
            num_cross_attention_heads=1,
            image_size=64,
        ),
        IMAGE,
    ),
    "TimmBackbone": (
        "features",
        "TimmBackbone",
        _config("TimmBackbone", backbone="resnet18", use_pretrained_backbone=False, out_indices=[1, 2, 3]),
        IMAGE,
    ),
}
