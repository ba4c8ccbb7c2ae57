"""A sample of the zoo, one network of each kind, examined as in the full run; and the zoo's own parts."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from experiments.zoo.axes import rank_correlation
from experiments.zoo.cases import Case, find
from experiments.zoo.depths import Depths, depths
from experiments.zoo.examine import examine
from experiments.zoo.report import write
from experiments.zoo.runner import load, run
from experiments.zoo.uniform import UNIFORM, examine_uniform

ZOO = Path(__file__).parents[2] / "experiments" / "zoo"

SAMPLE = {
    "torchvision:resnet18": "residual",
    "torchvision:mobilenet_v3_small": "depthwise, squeeze and excite",
    "torchvision:shufflenet_v2_x0_5": "channels split and shuffled",
    "torchvision:lraspp_mobilenet_v3_large": "segmentation",
    "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn": "detection, frozen batch norm, a dict of losses",
    "torchvision:r3d_18": "video",
    "torchvision:raft_small": "optical flow, two images, a recurrence",
    "timm:lcnet_035": "norm and activation in one layer",
    "timm:mobilevit_xxs": "convolution and attention",
    "timm:starnet_s050": "products of branches",
    "timm:edgenext_xx_small": "few batch norms among layer norms, LayerScale",
    "smp:Unet-resnet18": "U-Net",
    "monai:UNet-3d": "U-Net in three dimensions, instance norm",
    "diffusers:UNet2DModel": "U-Net with time embedding and group norm",
    "transformers:Bit": "weight standardization, group norm with activation",
}
PACKAGE = {"smp": "segmentation_models_pytorch"}


@pytest.mark.filterwarnings("ignore")  # the networks' own
@pytest.mark.slow
@pytest.mark.parametrize("key", SAMPLE)
def test_planned_converted_measured_and_trained(key: str) -> None:
    library = key.partition(":")[0]
    if importlib.util.find_spec(PACKAGE.get(library, library)) is None:
        pytest.skip(f"{library} is not installed; it is no part of the test extra")
    record = examine(find(key))
    assert record["outcome"] == "ok", (record["stage"], record["cause"])
    assert record["sites"] > 0
    assert math.isfinite(record["trend"]["isometric"])


@pytest.mark.filterwarnings("ignore")
def test_a_network_without_norms_is_refused() -> None:
    assert examine(find("torchvision:squeezenet1_1"))["outcome"] == "nothing to plan"


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.norm1, self.norm2 = nn.GroupNorm(1, 4), nn.GroupNorm(1, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x + self.norm2(self.second(self.norm1(x))))


def test_depth_is_counted_in_norms_on_the_way_to_the_loss() -> None:
    found = depths(Skip(), torch.randn(3, 4), lambda y: y.square().sum())
    assert found["last.weight"] == Depths(0, 0, 0)
    assert found["second.weight"] == Depths(1, 1, 1)
    assert found["first.weight"] == Depths(0, 2, 1)


def test_a_broken_network_is_a_miss_with_its_cause() -> None:
    class Broken(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no forward today")

    case = Case(
        "torch", "broken", "none", lambda: (Broken(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)), torch.randn(2, 8, 4, 4))
    )
    record = examine(case)
    assert (record["outcome"], record["stage"]) == ("miss", "plan")
    assert "no forward today" in record["cause"]
    assert record["alone"] == "ValueError: no forward today"


@pytest.mark.filterwarnings("ignore")
def test_one_number_for_all_layers_is_measured_as_the_plan_is() -> None:
    trends = examine_uniform(find("torchvision:resnet18"))["trend"]
    record = examine(find("torchvision:resnet18"))["trend"]
    assert list(trends) == list(UNIFORM)
    assert {s: trends[s] for s in set(trends) & set(record)} == {s: record[s] for s in set(trends) & set(record)}


def test_a_network_over_its_limit_is_a_miss_and_the_run_goes_on(tmp_path: Path) -> None:
    results = tmp_path / "zoo.jsonl"
    results.write_text('{"library": "torchvision", "model": "torn')
    run(["torchvision:resnet18"], results, jobs=1, seconds=1, gib=12)
    (record,) = load(results)
    assert record["outcome"] == "miss"
    assert record["cause"].startswith("over 1 s")


def test_a_rank_correlation_leaves_out_what_is_not_finite_and_is_unknown_for_constants() -> None:
    rising = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    assert rank_correlation(rising, np.array([1.0, 8.0, 0.0, 64.0, 125.0])) == pytest.approx(1)
    assert rank_correlation(rising, np.array([0.0, -1.0, 9.0, -2.0, -2.0])) == pytest.approx(-3 / math.sqrt(10))
    assert math.isnan(rank_correlation(rising, np.ones(5)))
    assert math.isnan(rank_correlation(rising[:2], rising[:2]))


def test_the_report_is_written_from_the_records(tmp_path: Path) -> None:
    records = [json.loads(line) for line in (ZOO / "zoo.jsonl").read_text().splitlines()[:40]]
    measured = load(ZOO / "zoo-uniform.jsonl")
    write(records, measured, tmp_path / "zoo.md")
    text = (tmp_path / "zoo.md").read_text()
    assert all(f"{r['library']}:{r['model']}" in text for r in records)
    assert f"| all |  | {len(records)} |" in text
