"""docs/zoo.md from the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from idealgroups.sections import replace_section
from idealgroups.solve import ISOMETRY_TOLERANCE, MAX_BUDGET, POSITION_TOLERANCE
from idealgroups.theory import trend

from .cases import LIBRARIES
from .examine import STRATEGIES

Record = dict[str, Any]
LEAST_LAYERS = 5
"""A network has a trend worth the name from this many weight layers on."""

LEVER = 0.5
"""Between one group and one channel per group the trend must move by this much for the number of groups to matter."""

LISTED = 15
"""Networks named in a list; the table has all of them."""

TIE = 0.01
WITHIN = ISOMETRY_TOLERANCE + TIE

SILENCE = -4.0
"""A weight whose log u falls by this much has stopped to learn."""


def write(records: list[Record], document: Path) -> None:
    records = sorted(records, key=lambda r: (LIBRARIES.index(r["library"]), r["task"], r["model"]))
    planned = [r for r in records if r["outcome"] == "ok"]
    with_trend = [r for r in planned if r["layers"] >= LEAST_LAYERS and r["trend"]["isometric"] is not None]
    replace_section(document, "zoo-coverage", coverage(records))
    replace_section(document, "zoo-misses", misses(records))
    replace_section(document, "zoo-trends", trends(with_trend))
    replace_section(document, "zoo-kinds", kinds(with_trend))
    replace_section(document, "zoo-axis", axis(with_trend))
    replace_section(document, "zoo-weights", weights(with_trend))
    replace_section(document, "zoo-edges", edges(with_trend))
    replace_section(document, "zoo-networks", networks(records))


def coverage(records: list[Record]) -> str:
    rows = []
    for library in (*LIBRARIES, "all"):
        mine = [r for r in records if library in (r["library"], "all")]
        if not mine:
            continue
        count = Counter(r["outcome"] for r in mine)
        tried = count["ok"] + count["miss"]
        share = f"{count['ok'] / tried:.1%}" if tried else "–"
        time = f"{median(r['seconds'] for r in mine if r['outcome'] == 'ok'):.1f} s" if count["ok"] else "–"
        release = next((r["versions"][library] for r in mine if library in r.get("versions", {})), "")
        rows.append((library, release, len(mine), count["nothing to plan"], tried, count["ok"], share, time))
    head = ("library", "version", "networks", "no norm to plan", "to plan", "all stages passed", "share", "median time")
    commits = sorted({r["commit"] for r in records if "commit" in r})
    torch = sorted({r["versions"]["torch"] for r in records if "versions" in r})
    note = (
        "Stages: build, plan with seven strategies, convert, measure, one SGD step with finite gradients. Checked on "
        "the way: planning changes nothing; the converted network measures what the plan promised; a network without a "
        "supported norm is refused in one sentence. Time is processor time on one core, all stages together. "
        f"PyTorch {', '.join(torch)}; revisions of this library: {', '.join(commits) or 'not recorded'}."
    )
    return f"{table(head, rows)}\n\n{note}"


def misses(records: list[Record]) -> str:
    rows = [
        (f"{r['library']}:{r['model']}", r["stage"], code(r.get("cause", "")), code(r.get("alone", "")))
        for r in records
        if r["outcome"] == "miss"
    ]
    if not rows:
        return "Every network that has a norm to plan passed every stage."
    return table(("network", "stage", "cause", "the network by itself"), rows)


def trends(records: list[Record]) -> str:
    sensitive = [r for r in records if lever(r) >= LEVER]
    dense = [r for r in sensitive if sees_positions(r)]
    pooled = [r for r in sensitive if not sees_positions(r)]
    normed = [r for r in pooled if r["sites"] >= r["layers"] / 2]
    parts = []
    for title, chosen in (
        (f"All {len(records)} networks with at least {LEAST_LAYERS} weight layers", records),
        (f"The {len(sensitive)} of them whose trend the number of groups moves by {LEVER} or more", sensitive),
        (f"The {len(pooled)} of these whose loss sees a global mean: here isometry is the aim", pooled),
        (f"The {len(normed)} of those {len(pooled)} in which every second weight layer or more has its norm", normed),
        (f"The {len(dense)} whose loss sees positions: here the plan lets T fall to −{POSITION_TOLERANCE:.1f}", dense),
    ):
        rows = []
        for strategy in STRATEGIES:
            values = [abs(r["trend"][strategy]) for r in chosen]
            rows.append(
                (
                    strategy,
                    f"{median(values):.2f}" if values else "–",
                    f"{np.quantile(values, 0.9):.2f}" if values else "–",
                    percent(value <= ISOMETRY_TOLERANCE + 0.05 for value in values),
                    percent(strategy in best(r, STRATEGIES) for r in chosen),
                    "" if strategy == "hybrid" else percent(strategy in best(r, PLAIN) for r in chosen),
                    "" if strategy == "hybrid" else percent(strategy in best(r, PLAIN, WITHIN) for r in chosen),
                    f"{median(r['spread'][strategy] for r in chosen):.2f}" if chosen else "–",
                )
            )
        head = (
            "strategy",
            "median of absolute trend",
            "90th percentile",
            "within 0.3",
            "most isometric",
            "without hybrid",
            "or within δ of it",
            "median spread",
        )
        parts.append(f"{title}:\n\n{table(head, rows)}")
    parts.append(
        f"*Most isometric*: the smallest absolute trend of all, ties within {TIE} counting for each; plans lean "
        f"to −δ on purpose (as many groups as isometry allows): δ is {ISOMETRY_TOLERANCE} or half a standard error "
        f"of the trend, whichever is more, and {POSITION_TOLERANCE:.1f} where the loss sees positions."
    )
    return "\n\n".join(parts)


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
    "depthwise (a quarter or more of the convolutions)": lambda r: r["depthwise"] * 4 >= max(r["convolutions"], 1),
    "without depthwise convolutions": lambda r: not r["depthwise"],
    "multi-branch (longest path ≥ 3 × shortest)": lambda r: branching(r) >= 3,
}


def branching(record: Record) -> float:
    longest, shortest = (
        max((d for d in record["depth"][k] if d is not None), default=1) for k in ("longest", "shortest")
    )
    return float(longest / max(shortest, 1))


def kinds(records: list[Record]) -> str:
    rows = []
    for kind, belongs in KINDS.items():
        mine = [r for r in records if belongs(r)]
        if mine:
            medians = [f"{median(abs(r['trend'][s]) for r in mine):.2f}" for s in STRATEGIES]
            wins = percent("isometric" in best(r, PLAIN) for r in mine)
            dense = percent(sees_positions(r) for r in mine)
            below = percent(r["trend"]["layer"] < -tolerance(r) for r in mine)
            above = percent(saturated(r) for r in mine)
            rows.append((kind, len(mine), dense, *medians, wins, below, above))
    head = (
        *("kind", "networks", "see positions", *STRATEGIES),
        *("plan most isometric", "below −δ at one group", "above +0.25 at the largest ε"),
    )
    return f"Median of the absolute trend by kind of network:\n\n{table(head, rows)}"


def saturated(record: Record) -> bool:
    """The largest budget is spent and early layers are still behind."""
    budget = record["budget"]["isometric"]
    return budget >= MAX_BUDGET - 1e-3 and record["trend"]["isometric"] > ISOMETRY_TOLERANCE


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


def weights(records: list[Record]) -> str:
    """The trend over all weights beside that over some of them: whose gradients are to be isometric?"""
    rows = []
    for kind, belongs in {**KINDS, "all networks": lambda _: True}.items():
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


def middle(values: Iterable[float]) -> str:
    values = [value for value in values if np.isfinite(value)]
    return number(median(values)) if values else "–"


def change(record: Record) -> np.ndarray:
    return np.array(record["log_u"]["instance"]) - np.array(record["log_u"]["layer"])


def position(record: Record, name: str) -> np.ndarray:
    if name == "execution order":
        return np.arange(len(record["log_u"]["layer"]), dtype=float)
    return finite(record["depth"][name])


def finite(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    a, b = ranks(a[both]), ranks(b[both])
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, ties getting their mean."""
    _, where, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[where]


def edges(records: list[Record]) -> str:
    below = [r for r in records if r["trend"]["layer"] < -tolerance(r)]
    rescued = [r for r in below if r["trend"]["isometric"] >= -tolerance(r)]
    above = [r for r in records if saturated(r)]
    hidden = [r for r in above if r["trend"]["instance"] < -tolerance(r)]
    flat = [r for r in records if lever(r) < LEVER]
    dead = [r for r in records if silenced(r)]
    parts = [
        f"**One group is already too many** ({len(below)} networks: trend at one group below −δ; in "
        f"{len(rescued)} of them a finer grouping is isometric all the same): {listing(below, 'layer')}.",
        f"**The largest budget is not enough** ({len(above)}: ε = {MAX_BUDGET:.2f} and the trend still above "
        f"{ISOMETRY_TOLERANCE}; in {len(hidden)} of them instance norm is below −δ, so isometry "
        f"lies between): {listing(above, 'isometric')}.",
        f"**The number of groups hardly matters** ({len(flat)}: the trend moves by less than {LEVER} from one group to "
        f"one channel per group): {listing(flat, 'isometric')}.",
    ]
    parts.append(
        f"**The plan silences weights** ({len(dead)}: log u of some weights is {-SILENCE:g} or more below that with "
        "one group; one channel per group removes what is constant over positions, a time embedding for instance): "
        + (", ".join(f"{r['library']}:{r['model']} ({silenced(r)} of {r['layers']})" for r in dead) or "none")
        + "."
    )
    return "\n\n".join(parts)


def silenced(record: Record) -> int:
    lost = np.array(record["log_u"]["isometric"]) - np.array(record["log_u"]["layer"])
    return int((lost < SILENCE).sum())


def listing(records: list[Record], strategy: str) -> str:
    worst = sorted(records, key=lambda r: -abs(r["trend"][strategy]))
    named = ", ".join(f"{r['library']}:{r['model']} ({number(r['trend'][strategy])})" for r in worst[:LISTED])
    return (named or "none") + (f" and {len(worst) - LISTED} more in the table below" if len(worst) > LISTED else "")


def networks(records: list[Record]) -> str:
    rows = []
    for r in records:
        if r["outcome"] == "ok":
            widths = [channels // groups for channels, _, groups in r["groups"]]
            cells = (
                r["input"] if len(r["input"]) < 30 else r["input"][:27] + "…",
                r["sites"],
                min(positions for _, positions, _ in r["groups"]),
                f"{tolerance(r):.2f}",
                number(r["budget"]["isometric"]),
                f"{median(widths):g}",
                f"{min(widths)}–{max(widths)}",
                number(r["trend_before"]),
                *(number(r["trend"][s]) for s in STRATEGIES),
            )
        else:
            cells = (r["outcome"], *([""] * 14))
        rows.append((f"{r['library']}:{r['model']}", *cells))
    head = ("network", "input", "norms", "least S", "δ", "ε", "median c", "range of c", "T before", *STRATEGIES)
    return table(head, rows)


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [f"| {' | '.join(map(str, head))} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def code(text: str) -> str:
    return f"`{text.replace('|', '/').replace('`', chr(39))[:200]}`" if text else ""


def percent(values: Iterable[bool]) -> str:
    values = list(values)
    return f"{sum(values) / len(values):.0%}" if values else "–"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")
