"""The table of speed and memory, from records made by hand."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from experiments.common.jsonl import load_records
from experiments.memory import CASES, TASKS
from experiments.speed import MEMORY, NETWORKS, TIMES, ZOO, tables

ROOT = Path(__file__).parents[2]


def time(network: str, ratios: list[float]) -> dict[str, Any]:
    return {"network": network, "passes": 5, "seconds": 0.5, "ratios": ratios}


def memory(network: str, plan: float, calibrate: float | None) -> dict[str, Any]:
    return {"network": network, "training": 99.6, "plan": plan, "convert": 1.0, "calibrate": calibrate}


def test_what_is_over_a_limit_is_named() -> None:
    times = [time("resnet50", [5.0, 6.0, 9.0]), time("resnet18", [13.0, 14.0, 12.5]), time("resnet101", [5.0])]
    text = tables(times, [memory("resnet50", 0.9, 0.8), memory("resnet18", 1.2, None)])
    assert "| resnet50 | 0.50 | 5 | 6.0 | 5.0 to 9.0 | 100 | 0.90 | 1.00 | 0.80 |" in text
    assert "| 1.20 | 1.00 | – |" in text
    assert "resnet101" not in text
    assert "9.5 forward + backward passes in the median, 13.0 at most, above 12 in 1 (resnet18)" in text
    assert "plan 1.05 in the median, 1.20 at most, above 1.1 in 1 (resnet18);" in text
    assert text.endswith("calibrate 0.80 in the median, 0.80 at most, above 1.1 in 0.")


def test_twenty_networks_of_the_zoo_are_measured_beside_the_six_named() -> None:
    assert len(set(ZOO)) == 20
    assert len(NETWORKS) == 26


def test_networks_are_built_with_their_inputs() -> None:
    model, inputs = CASES["mlp, 32 images of 32 px"].build()
    assert model(inputs).shape == (32, 10)


def test_pages_say_what_planning_costs() -> None:
    """The README and the FAQ round it, docs/cost.md has a digit: all come from the records."""
    records, peaks = load_records(TIMES), load_records(MEMORY)
    assert {record["network"] for record in records} == {record["network"] for record in peaks} == set(NETWORKS)
    times = [median(record["ratios"]) for record in records]
    rounded = {5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}[round(median(times))]
    for page in ("README.md", "docs/faq.md"):
        assert f"about {rounded} training steps" in (ROOT / page).read_text(encoding="utf-8"), page
    page = " ".join((ROOT / "docs" / "cost.md").read_text(encoding="utf-8").split())
    assert f"the median is {median(times):.1f} passes, the most is {max(times):.1f}." in page
    most = [max(record[task] for record in peaks if record[task] is not None) for task in TASKS[1:]]
    assert "at most {:.2f} for `plan`, {:.2f} for `convert` and {:.2f} for calibrating".format(*most) in page
