"""From a word to a network and its input."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from idealgroups.cli.networks import load_model, parse_keywords, parse_shape, to_device
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
        with pytest.raises(IdealGroupsError, match="as in 3x224x224, got"):
            parse_shape(text)


def test_keywords_are_literals_or_strings() -> None:
    texts = ["a=10", "b=1e-3", "c=(2, 3)", "d=relu", "e=None", "f=a=b", "g=", "h=[1", "i='10'"]
    assert parse_keywords(texts) == {
        "a": 10, "b": 1e-3, "c": (2, 3), "d": "relu", "e": None, "f": "a=b", "g": "", "h": "[1", "i": "10"
    }  # fmt: skip
    for text in ("a", "=3", "2a=3", "a b=3"):
        with pytest.raises(IdealGroupsError, match="NAME=VALUE"):
            parse_keywords([text])


@pytest.mark.parametrize("source", ["torchvision:resnet18", "timm:resnet18"])
def test_keywords_reach_the_builders(source: str) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("torchvision")
    assert load_model(source, keywords={"num_classes": 7}).model.fc.out_features == 7


def test_the_input_of_timm_has_the_channels_that_were_asked_for() -> None:
    pytest.importorskip("timm")
    assert load_model("timm:resnet18", keywords={"in_chans": 1}).shape == (1, 224, 224)


def test_a_file_that_fails_leaves_no_module_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "fails_at_first.py"
    for text in ("raise ValueError('no')", "raise SystemExit", "import no_such_module_here"):
        file.write_text(text)
        with pytest.raises((IdealGroupsError, SystemExit)) as caught:
            load_model(f"{file}:make")
        assert caught.value.__cause__ is None
        assert "fails_at_first" not in sys.modules
    file.write_text("from torch import nn\ndef make(): return nn.Linear(2, 2)")
    monkeypatch.delitem(sys.modules, "fails_at_first", raising=False)
    assert load_model(f"{file}:make").model.out_features == 2
    del sys.modules["fails_at_first"]


def test_inputs_move_whatever_holds_them() -> None:
    inputs = ([torch.ones(1)], {"a": (torch.ones(2), 3)}, "text")
    moved = to_device(inputs, torch.device("meta"))
    assert moved[0][0].device.type == moved[1]["a"][0].device.type == "meta"
    assert (moved[1]["a"][1], moved[2]) == (3, "text")
