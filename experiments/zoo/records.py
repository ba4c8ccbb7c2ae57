"""What a record of one network says about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..common.first_rule import ISOMETRY_TOLERANCE, MAX_BUDGET
from .examine import STRATEGIES

Record = dict[str, Any]

LEAST_LAYERS = 5
"""A network has a trend worth the name from this many weight layers on."""

LEVER = 0.5
"""Between one group and one channel per group the trend must move by this much for the number of groups to matter."""

ISOMETRIC = ISOMETRY_TOLERANCE + 0.05
"""The goal for a plan's absolute trend: the least δ, and what rounding to divisors may add."""

TIE = 0.01
WITHIN = ISOMETRY_TOLERANCE + TIE

SILENCE = -4.0
"""A weight whose log u falls by this much has stopped to learn."""


def sees_positions(record: Record) -> bool:
    """Which δ the plan took: the library found no global pool in front of the loss."""
    return not record["pooled"]


def tolerance(record: Record) -> float:
    """δ of the plan."""
    return float(record["tolerance"])


PLAIN = tuple(s for s in STRATEGIES if s != "hybrid")


def best(record: Record, among: Iterable[str], slack: float = TIE) -> set[str]:
    values = {s: abs(record["trend"][s]) for s in among if record["trend"][s] is not None}
    return {s for s, value in values.items() if value <= min(values.values()) + slack}


def lever(record: Record) -> float:
    ends = record["trend"]["layer"], record["trend"]["instance"]
    return 0.0 if None in ends else abs(ends[0] - ends[1])


def depthwise(record: Record) -> bool:
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
    "a norm on 1×1 maps": lambda r: any(s == 1 for _, s, _ in r["groups"]),
    "depthwise (a quarter or more of the convolutions)": depthwise,
    "without depthwise convolutions": lambda r: not r["depthwise"],
    "multi-branch (longest path ≥ 3 × shortest)": lambda r: branching(r) >= 3,
}


def branching(record: Record) -> float:
    longest, shortest = (
        max((d for d in record["depth"][k] if d is not None), default=1) for k in ("longest", "shortest")
    )
    return float(longest / max(shortest, 1))


def saturated(record: Record) -> bool:
    """The largest budget is spent and early layers are still behind."""
    budget: float = record["budget"]["isometric"]
    return bool(budget >= MAX_BUDGET - 1e-3 and record["trend"]["isometric"] > ISOMETRY_TOLERANCE)


def silenced(record: Record) -> int:
    lost = np.array(record["log_u"]["isometric"]) - np.array(record["log_u"]["layer"])
    return int((lost < SILENCE).sum())
