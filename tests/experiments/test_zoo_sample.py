"""A sample of the zoo, one network of each kind, examined as in the full run; and the zoo's own parts."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from experiments.zoo import examine as examining
from experiments.zoo.cases import Case, find
from experiments.zoo.examine import STRATEGIES, examine
from experiments.zoo.records import finest, keeps, matters, measured, trend
from experiments.zoo.report import write
from experiments.zoo.runner import load, run
from experiments.zoo.text import percent

SAMPLE = {  # other kinds than those of tests/test_api.py, and one of them
    "torchvision:resnet18": "residual",
    "torchvision:shufflenet_v2_x0_5": "channels split and shuffled",
    "torchvision:lraspp_mobilenet_v3_large": "segmentation",
    "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn": "detection, frozen batch norm, a dict of losses",
    "torchvision:raft_small": "optical flow, two images, a recurrence",
    "timm:mobilevit_xxs": "convolution and attention",
    "timm:edgenext_xx_small": "few batch norms among layer norms, LayerScale",
    "smp:Unet-resnet18": "U-Net",
    "monai:UNet-3d": "U-Net in three dimensions, instance norm",
    "diffusers:UNet2DModel": "U-Net with time embedding and group norm",
    "transformers:Bit": "weight standardization, group norm with activation",
}
ROOT = Path(__file__).parents[2]
PACKAGE = {"smp": "segmentation_models_pytorch"}


@pytest.mark.filterwarnings("ignore")  # the networks' own
@pytest.mark.slow
@pytest.mark.parametrize("key", SAMPLE)
def test_converted_compared_and_trained(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # the strategies that measure; the others, and the price, are the same for every network
    monkeypatch.setattr(examining, "STRATEGIES", ("isometric", "uniform", "uniform-group-size", "layer"))
    monkeypatch.setattr(examining, "pass_seconds", lambda *arguments: 1.0)
    library = key.partition(":")[0]
    if importlib.util.find_spec(PACKAGE.get(library, library)) is None:
        pytest.skip(f"{library} is not installed; it is no part of the test extra")
    record = examine(find(key))
    assert record["outcome"] == "ok", (record["stage"], record["cause"])
    assert record["sites"] > 0
    assert math.isfinite(record["strategies"]["isometric"][0])
    assert all(record["passes"][i] >= 2 for i in (0, 1))


@pytest.mark.filterwarnings("ignore")
def test_a_network_without_norms_is_refused() -> None:
    assert examine(find("torchvision:squeezenet1_1"))["outcome"] == "nothing to plan"


def test_a_broken_network_is_a_miss_with_its_cause() -> None:
    class Broken(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no forward today")

    case = Case(
        "torch", "broken", "none", lambda: (Broken(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)), torch.randn(2, 8, 4, 4))
    )
    record = examine(case)
    assert (record["outcome"], record["stage"]) == ("miss", "convert")
    assert "no forward today" in record["cause"]
    assert record["alone"] == "ValueError: no forward today"


def test_a_network_over_its_limit_is_a_miss_and_the_run_goes_on(tmp_path: Path) -> None:
    results = tmp_path / "zoo.jsonl"
    results.write_text('{"library": "torchvision", "model": "torn')
    run(["torchvision:resnet18"], results, jobs=1, seconds=1, gib=12)
    (record,) = load(results)
    assert record["outcome"] == "miss"
    assert record["cause"].startswith("over 1 s")


def made_by_hand(name: str, trend: float, outcome: str = "ok", **other: Any) -> dict[str, Any]:
    """A record; ``trend``: of the plan. Every other choice has 0.1, instance norm −3, and groups of 16 channels."""
    return {
        "library": "timm",
        "model": name,
        "task": "classification",
        "outcome": outcome,
        "stage": "convert",
        "strategies": {s: [0.1, 1.0, 16.0] for s in STRATEGIES}
        | {"isometric": [trend, 1.0, 4.0], "instance": [-3.0, 1.0, 1.0]},
        "sizes_by_width": {"64": 4.0},
        "lowest_trend": -1.0,
        "line": 20,
        "least_positions": 4,
        "depthwise": 0,
        "convolutions": 20,
        "passes": [5, 4],
        "cost": [6.0, 5.0, 9.0],
        "pass_seconds": 0.3,
    } | other


def test_the_smallest_groups_are_looked_for_among_those_that_keep_the_limit() -> None:
    assert finest(made_by_hand("a", -0.9), STRATEGIES) == {"isometric"}
    assert finest(made_by_hand("a", -1.2), STRATEGIES) == set(STRATEGIES) - {"isometric", "instance"}


def test_the_report_counts_networks_and_shows_what_is_against_us(tmp_path: Path) -> None:
    records = [made_by_hand("one", -0.9), made_by_hand("two", -0.2), made_by_hand("three", -1.0, "miss", cause="why")]
    records.append(made_by_hand("four", -1.0, "nothing to plan"))
    write(records, tmp_path / "zoo.md")
    text = (tmp_path / "zoo.md").read_text()
    assert "| all |  | 4 | 1 | 3 | 2 | 66.7% |" in text
    assert "| timm:three | convert | `why` |" in text
    assert "| isometric | 0.55 | 0.83 | 50% | 100% | 100% | 100% | 1.00 | 4.0 |" in text
    assert "| instance | 3.00 | 3.00 | 0% | 0% | 0% | 0% | 1.00 | 1.0 |" in text
    assert "| fixed-32 | 2 (100%) | 0 (0%) | 0 (0%) |" in text
    assert "| passes, `isometric` | 2 | 5.0 | 5.0 | 5.0 | 100% | 100% |" in text
    assert "5: 2." in text


def test_the_evidence_says_what_the_records_say() -> None:
    records = load(ROOT / "experiments" / "zoo" / "zoo.jsonl")
    text = " ".join((ROOT / "docs" / "evidence.md").read_text(encoding="utf-8").split())
    assert not [r for r in records if r["outcome"] == "miss"]
    fine = [r for r in records if measured(r)]
    told = ("isometric", "layer", "uniform", "group-size-16", "fixed-32")
    sizes = [f"{median(abs(trend(r, s)) for r in fine):.2f}" for s in told]
    near = [percent(abs(trend(r, s)) <= 1 for r in fine) for s in told]
    broken = [percent(not keeps(r, s) for r in fine) for s in ("fixed-32", "block", "group-size-16", "instance")]
    closer = percent(abs(trend(r, "uniform")) < abs(trend(r, "isometric")) - 0.01 for r in fine)
    cost = [[r["cost"][i] for r in records if r["outcome"] == "ok"] for i in (0, 1)]
    slow = [[r["cost"][i] for r in records if r.get("pass_seconds", 0) >= 0.2] for i in (0, 1)]
    for sentence in (
        f"{len(fine)} networks have a line of at least five weights",
        f"32 groups break it in {broken[0]}, `block` in {broken[1]}, a group size of 16 in {broken[2]}, "
        f"instance norm in {broken[3]}. In {percent('isometric' in finest(r, STRATEGIES) for r in fine)} the plan has",
        f"is {sizes[0]} with the plan, {sizes[1]} with one group, {sizes[2]} with `uniform`, {sizes[3]} with a group "
        f"size of 16, and {sizes[4]} with 32 groups. In the same order, {', '.join(near[:4])} and {near[4]}",
        f"closer to zero than the plan in {closer} of the networks",
        f"In {sum(not matters(r) for r in fine)} networks the number of groups moves the trend by less than 0.5",
        f"this is {median(cost[0]):.1f} and {median(cost[1]):.1f} forward and backward passes in the median, "
        f"or {median(slow[0]):.1f} and {median(slow[1]):.1f} where a pass takes 0.2 s or more",
        f"more than 12 passes in {percent(c > 12 for c in cost[0])} of the networks; the most is {max(cost[0]):.0f}",
    ):
        assert sentence in text, sentence
    assert all(keeps(r, "isometric") for r in fine)
