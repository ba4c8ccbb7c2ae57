"""What a record of one network says about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Record = dict[str, Any]

LEAST_LAYERS = 5
"""A network has a trend worth the name from this many weight layers in its line on."""

LEVER = 0.5
"""Between one group and one channel per group the trend must move by this much for the number of groups to matter."""


def trend(record: Record, strategy: str) -> float:
    """T with the numbers of groups of a strategy."""
    return float(record["strategies"][strategy][0])


def spread(record: Record, strategy: str) -> float:
    """Standard deviation of log u over the line."""
    return float(record["strategies"][strategy][1])


def mean_size(record: Record, strategy: str) -> float:
    """Geometric mean of the group sizes over layers."""
    return float(record["strategies"][strategy][2])


def measured(record: Record) -> bool:
    """Whether the network was planned, converted and trained, and has a trend with every strategy."""
    if record["outcome"] != "ok" or record["line"] < LEAST_LAYERS:
        return False
    return all(trend is not None for trend, _, _ in record["strategies"].values())


def lever(record: Record) -> float:
    """How far the trend moves from one group to one channel per group."""
    return abs(trend(record, "layer") - trend(record, "instance"))


def matters(record: Record) -> bool:
    """Whether the number of groups moves the trend."""
    return lever(record) >= LEVER


def reachable(record: Record) -> bool:
    """Whether one group leaves the trend at or above zero, so that some number of groups is isometric or none falls."""
    return trend(record, "layer") >= 0


def keeps(record: Record, strategy: str) -> bool:
    """Whether the trend is at or above the lowest that the rule allows; rounding aside."""
    return trend(record, strategy) >= float(record["lowest_trend"]) - 1e-3


def finest(record: Record, among: tuple[str, ...]) -> set[str]:
    """The strategies that keep the limit with the smallest groups, within a tenth in the geometric mean of sizes."""
    sizes = {s: mean_size(record, s) for s in among if keeps(record, s)}
    return {s for s, size in sizes.items() if size <= 1.1 * min(sizes.values())}


def depthwise(record: Record) -> bool:
    """Whether a quarter or more of the convolutions are depthwise."""
    return bool(record["depthwise"] * 4 >= max(record["convolutions"], 1))


KINDS: dict[str, Callable[[Record], bool]] = {
    "classification": lambda r: r["task"] == "classification",
    "U-nets": lambda r: r["task"] == "u-net",
    "autoencoders": lambda r: r["task"] == "autoencoder",
    "segmentation, other": lambda r: r["task"] == "segmentation",
    "detection": lambda r: r["task"] == "detection",
    "video and three dimensions": lambda r: r["task"] == "video" or "-3d" in r["model"],
    "audio, time series": lambda r: r["task"] in ("audio", "time series"),
    "optical flow": lambda r: r["task"] == "optical flow",
    "a norm on 1×1 maps": lambda r: r["least_positions"] == 1,
    "depthwise (a quarter or more of the convolutions)": depthwise,
    "without depthwise convolutions": lambda r: not r["depthwise"],
}
