"""From a word to a network and its input."""

from __future__ import annotations

import pytest
import torch

from idealgroups.cli.networks import load_model, parse_shape
from idealgroups.errors import IdealGroupsError


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ("torchvision:resnet18", (3, 224, 224)),
        ("torchvision:efficientnet_b3", (3, 300, 300)),
        ("torchvision:r3d_18", (3, 16, 112, 112)),
        ("timm:efficientnet_b1", (3, 240, 240)),
        ("timm:resnet50_gn", (3, 224, 224)),
    ],
)
def test_the_input_is_the_models_own(spec: str, shape: tuple[int, ...]) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("timm")
    assert load_model(spec).shape == shape


def test_weights_are_random_by_seed_and_the_generator_stays() -> None:
    pytest.importorskip("torchvision")
    state = torch.get_rng_state()
    first, same, other = (load_model("torchvision:resnet18", seed).model.conv1.weight for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_shapes() -> None:
    assert parse_shape("3x128X64") == (3, 128, 64)
    for text in ("", "3x", "3x0x4", "axb", "3 x 4", "-3x4"):
        with pytest.raises(IdealGroupsError, match="is no shape"):
            parse_shape(text)
