from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import idealgroups as ig
from experiments.study.networks import NETWORKS, build

NORMS = {
    "mlp3": [256] * 3,
    "mlp8": [256] * 8,
    "plain9": [32] * 3 + [64] * 3 + [128] * 3,
    "plain15": [32] * 15,
    "unet": [16, 16, 32, 32, 64, 64, 32, 32, 16, 16],
    "diffusion-unet": [32, 32, 32, 64, 64, 128, 128, 128, 192, 64, 96, 32, 32],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains_on_small_images(name: str) -> None:
    network = build(name, 2, 10, 8)
    logits = network(torch.randn(4, 2, 8, 8))
    assert logits.shape == ((4, 10, 8, 8) if name in ("unet", "diffusion-unet") else (4, 10))
    F.cross_entropy(logits, torch.zeros(logits.shape[:1] + logits.shape[2:], dtype=torch.long)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("name", NORMS)
def test_norm_layers_are_what_the_name_says(name: str) -> None:
    norms = [m for m in build(name, 3, 10, 16).modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == NORMS[name]


@pytest.mark.parametrize(("name", "depth"), [("resnet14", 14), ("resnet20", 20), ("resnet56", 56), ("resnet18", 18)])
def test_resnets_have_the_depth_in_their_name(name: str, depth: int) -> None:
    modules = build(name, 3, 10, 16).modules()
    weights = [m for m in modules if isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.kernel_size[0] == 3)]
    assert len(weights) == depth


def test_a_network_in_half_precision_has_the_same_weights_and_nearly_the_same_outputs() -> None:
    half, full, x = build("resnet20-bf16", 3, 10, 8), build("resnet20", 3, 10, 8), torch.randn(4, 3, 8, 8)
    full.load_state_dict(half.get_submodule("network").state_dict())
    inside: list[torch.dtype] = []
    conv = next(m for m in half.modules() if isinstance(m, nn.Conv2d))
    conv.register_forward_hook(lambda _, __, output: inside.append(output.dtype))
    logits = half(x)
    assert inside == [torch.bfloat16]
    assert logits.dtype == torch.float32 == next(half.parameters()).dtype
    assert (logits - full(x)).abs().max() < 0.05 * full(x).abs().max()
    F.cross_entropy(logits, torch.zeros(4, dtype=torch.long)).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in half.parameters())


def test_an_unknown_network_is_named_with_its_nearest_match() -> None:
    with pytest.raises(ig.IdealGroupsError, match="did you mean mobilenet"):
        build("mobilnet", 3, 10, 16)


def test_a_network_of_timm_and_one_that_timm_does_not_have() -> None:
    assert build("timm/resnet10t", 1, 5, 32)(torch.randn(2, 1, 32, 32)).shape == (2, 5)
    with pytest.raises(ig.IdealGroupsError, match="timm cannot build 'resnet1O'"):
        build("timm/resnet1O", 3, 10, 32)
