"""Along which axis, and over which weights, to draw the trend: what the zoo says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import spearmanr

from ..common.first_rule import trend
from ..common.markdown import table
from .records import KINDS, LEAST_LAYERS, LEVER, Record, lever, tolerance
from .text import middle, percent

AXES = ("execution order", "longest", "shortest", "mean")


def axis(records: list[Record]) -> str:
    """Which axis explains what grouping does to the gradients: Δ log u between instance and layer norm, by layer."""
    rows = []
    for kind, belongs in KINDS.items():
        mine = [r for r in records if belongs(r) and lever(r) >= LEVER]
        if len(mine) < 3:
            continue
        every = [middle(abs(rank_correlation(change(r), position(r, name))) for r in mine) for name in AXES]
        convolutional = [r for r in mine if convolutions(r).sum() >= LEAST_LAYERS]
        only = middle(
            abs(rank_correlation(change(r)[c], position(r, "execution order")[c]))
            for r, c in ((r, convolutions(r)) for r in convolutional)
        )
        rows.append((kind, len(mine), *every, only))
    head = (
        "kind",
        "networks",
        "execution order",
        "norms to the loss, longest path",
        "shortest path",
        "mean",
        "execution order, convolutions only",
    )
    return (
        "Does the change of log u from layer norm to instance norm, weight by weight, follow execution order, or the "
        "number of norms between the weight and the loss? Median absolute rank correlation:\n\n" + table(head, rows)
    )


def always(record: Record) -> bool:
    return True


def weights(records: list[Record]) -> str:
    """The trend over all weights beside that over some of them: whose gradients are to be isometric?"""
    rows = []
    for kind, belongs in [*KINDS.items(), ("all networks", always)]:
        mine = [r for r in records if belongs(r) and all(mask(r).sum() >= LEAST_LAYERS for mask in WEIGHTS.values())]
        if len(mine) < 3:
            continue
        part = {
            (name, strategy): np.array([line(np.array(r["log_u"][strategy])[mask(r)]) for r in mine])
            for name, mask in WEIGHTS.items()
            for strategy in ("layer", "isometric")
        }
        whole, deltas = part["all weights", "layer"], np.array([tolerance(r) for r in mine])
        rows.append(
            (
                kind,
                len(mine),
                *map(middle, part.values()),
                *(middle(np.abs(part[name, "layer"] - whole)) for name in list(WEIGHTS)[1:]),
                *(percent((part[name, "layer"] < -deltas) != (whole < -deltas)) for name in list(WEIGHTS)[1:]),
            )
        )
    head = (
        "kind",
        "networks",
        *(f"{strategy}, {name}" for name in WEIGHTS for strategy in ("layer", "isometric")),
        *(f"{name}: difference" for name in list(WEIGHTS)[1:]),
        *(f"{name}: other verdict" for name in list(WEIGHTS)[1:]),
    )
    return (
        "Median trend over all weights, over those with a norm between them and the loss (all that groups can "
        "move), and over convolutions alone. *Difference*: median absolute difference from the trend over all weights, "
        "at one group; *other verdict*: networks in which only one of the two is below −δ at one group:\n\n"
        + table(head, rows)
    )


WEIGHTS: dict[str, Callable[[Record], np.ndarray]] = {
    "all weights": lambda r: np.ones(len(r["log_u"]["layer"]), dtype=bool),
    "below a norm": lambda r: finite(r["depth"]["longest"]) >= 1,
    "convolutions": lambda r: convolutions(r),
}


def convolutions(record: Record) -> np.ndarray:
    return np.array(record.get("dimensions", [])) >= 3


def line(values: np.ndarray) -> float:
    return trend(values) if len(values) > 1 else float("nan")


def change(record: Record) -> np.ndarray:
    changed: np.ndarray = np.array(record["log_u"]["instance"]) - np.array(record["log_u"]["layer"])
    return changed


def position(record: Record, name: str) -> np.ndarray:
    if name == "execution order":
        return np.arange(len(record["log_u"]["layer"]), dtype=float)
    return finite(record["depth"][name])


def finite(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's; NaN for fewer than three finite pairs, or where one of the two never changes."""
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
