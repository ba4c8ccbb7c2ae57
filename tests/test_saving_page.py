"""The code of docs/saving.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import idealgroups as ig

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "saving.md").read_text()


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    assert "these weights belong to other groups" in capsys.readouterr().out


def test_the_page_names_every_recipe() -> None:
    files = {file.name for file in (ROOT / "recipes").glob("with_*.py")}
    assert set(re.findall(r"`(with_\w+\.py)`", PAGE)) == files


def test_what_the_guide_says_needs_nothing_to_be_done() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    x = torch.randn(4, 3, 8, 8)
    converted, _ = ig.convert(model, x)
    before = {name: tensor.clone() for name, tensor in converted.state_dict().items()}
    torch.optim.swa_utils.update_bn([x], converted)
    assert all(torch.equal(tensor, before[name]) for name, tensor in converted.state_dict().items())
    assert not list(converted.buffers())
    assert type(nn.SyncBatchNorm.convert_sync_batchnorm(converted)[1]) is nn.GroupNorm
    averaged = torch.optim.swa_utils.AveragedModel(converted, use_buffers=True)
    averaged.update_parameters(converted)
    torch.testing.assert_close(averaged(x), converted(x))
    with pytest.raises(AttributeError):
        torch.nn.utils.fusion.fuse_conv_bn_eval(converted[0].eval(), converted[1].eval())
