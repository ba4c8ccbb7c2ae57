"""``idealgroups convert``: trained weights and a folder of images in, converted weights and the plan out."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import idealgroups as ig
from idealgroups.cli.app import main
from idealgroups.cli.convert import read_folder

Image = pytest.importorskip("PIL.Image")

NET = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network's file, its trained weights, and twelve images in two folders."""
    (tmp_path / "nets.py").write_text(NET)
    torch.save({"state_dict": {f"module.{k}": v for k, v in trained(tmp_path).state_dict().items()}}, tmp_path / "w.pt")
    rng = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "images" / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(path)
    return tmp_path


def trained(folder: Path) -> nn.Module:
    spec = importlib.util.spec_from_file_location("nets", folder / "nets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(1)
    net = module.net()
    nn.init.normal_(net[1].running_mean)
    nn.init.uniform_(net[1].running_var, 0.5, 2)
    return net.eval()


def convert(folder: Path, *more: str, weights: str = "w.pt", data: str = "images", save: str = "out.pt") -> int:
    where = ["--weights", str(folder / weights), "--data", str(folder / data), "--save", str(folder / save)]
    with pytest.raises(SystemExit) as stop:
        main(["convert", f"{folder}/nets.py:net", *where, "--input", "3x16x16", *more])
    return stop.value.code


def test_the_files_it_writes_make_the_converted_network(folder, capsys):
    assert convert(folder) == 0
    assert "calibrated on 12 samples" in capsys.readouterr().out
    plan = ig.Plan.load(folder / "out.pt.plan.json")
    model = ig.restore(trained(folder), folder / "out.pt")
    x = read_folder(folder / "images", (3, 16, 16), 12, None, None)
    reference = trained(folder)
    with torch.no_grad():
        wanted = reference(x)
        error = (model(x) - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()
    assert float(error) == pytest.approx(plan.output_residual, rel=1e-3)
    assert float(error) < 1


def test_json(folder, capsys):
    assert convert(folder, "--json", "--strategy", "layer", "--samples", "4") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["strategy"], found["calibrated_on"]) == ("layer", 4)


def test_an_image_is_scaled_cut_in_the_middle_and_normalized(tmp_path):
    """20 × 40, red in the middle half: a square of 10 × 10 out of it is red, whatever the scaling."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 5:35, 0] = 255
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    x = read_folder(tmp_path, (3, 10, 10), 5, (0.5, 0.0, 0.0), (0.5, 1.0, 1.0))
    assert x.shape == (2, 3, 10, 10)
    assert x[0, :, 5, 5].tolist() == [1, 0, 0]
    assert x.mean((2, 3))[0].tolist() == [1, 0, 0]


def test_arrays_are_taken_as_they_are(tmp_path):
    for i in range(5):
        np.save(tmp_path / f"{i}.npy", np.full((2, 7), i, np.float32))
    assert read_folder(tmp_path, (2, 7), 3, None, None)[:, 0, 0].tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"weights": "none.pt"}, "cannot read the checkpoint"),
        ({"weights": "nets.py"}, "cannot be read"),
        ({"weights": "other.pt"}, "weights of another network"),
        ({"data": "none"}, "there is no folder"),
        ({"data": "empty"}, "holds 0 images"),
        ({"data": "text"}, "is no image"),
        ({"save": "none/out.pt"}, "there is no folder"),
    ],
)
def test_files_that_will_not_do(folder, capsys, change, why):
    torch.save(nn.Linear(2, 2).state_dict(), folder / "other.pt")
    (folder / "empty").mkdir()
    (folder / "text").mkdir()
    for name in ("a.png", "b.png"):
        (folder / "text" / name).write_text("no image")
    assert convert(folder, **change) == 2
    message = capsys.readouterr().err
    assert why in message
    assert message.count("\n") == 1
    assert not (folder / "out.pt").exists()
