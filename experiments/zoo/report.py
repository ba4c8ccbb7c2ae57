"""report.md from the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from ..common.markdown import replace_section, table
from .cases import LIBRARIES
from .examine import STRATEGIES
from .records import (
    KINDS,
    LEAST_LAYERS,
    LEVER,
    Record,
    depthwise,
    finest,
    keeps,
    matters,
    mean_size,
    measured,
    reachable,
    spread,
    trend,
)
from .text import code, number, percent

LISTED = 15
"""Networks named in a list; the records have all of them."""

NEAR = 0.3
"""What counted as isometric under the first rule."""

RIVALS = ("uniform", "uniform-group-size", "block", "fixed-32", "group-size-16", "layer")
CHANNELS = (16, 32, 64, 128, 256, 512, 1024, 2048)
DEPTHWISE: dict[str, Callable[[Record], bool]] = {
    "no depthwise convolution": lambda r: not r["depthwise"],
    "a quarter or more depthwise": depthwise,
}


def write(records: Sequence[Record], document: Path) -> None:
    """Write every part of the report that comes from records."""
    fine = [r for r in records if measured(r)]
    for name, text in (
        ("coverage", coverage(records)),
        ("misses", misses(records)),
        ("trends", trends(fine)),
        ("against", against(fine)),
        ("kinds", kinds(fine)),
        ("cost", cost([r for r in records if r["outcome"] == "ok"])),
        ("widths", widths(fine)),
        ("edges", edges(fine)),
    ):
        replace_section(document, f"zoo-{name}", text)


def coverage(records: Sequence[Record]) -> str:
    """What became of every network, by library."""
    rows = []
    for library in (*LIBRARIES, "all"):
        mine = [r for r in records if library in (r["library"], "all")]
        if not mine:
            continue
        count = Counter(r["outcome"] for r in mine)
        tried = count["ok"] + count["miss"]
        share = f"{count['ok'] / tried:.1%}" if tried else "–"
        release = "" if library == "all" else next((r["version"] for r in mine if "version" in r), "")
        rows.append((library, release, len(mine), count["nothing to plan"], tried, count["ok"], share))
    head = ("library", "version", "networks", "no norm to plan", "to plan", "all stages passed", "share")
    coupled = [r for r in records if r.get("coupled")]
    note = f"In {len(coupled)} of the converted networks one sample of a batch still changes what another gets"
    return f"{table(head, rows)}\n\n{note}{_named(coupled)}."


def misses(records: Sequence[Record]) -> str:
    """The networks that failed, with the cause."""
    rows = [
        (_key(r), r["stage"], code(r.get("cause", "")), code(r.get("alone", "")))
        for r in records
        if r["outcome"] == "miss"
    ]
    if not rows:
        return "Every network that has a norm to plan passed every stage."
    return table(("network", "stage", "cause", "the network by itself"), rows)


def trends(records: Sequence[Record]) -> str:
    """The trend of every strategy, over all networks and over those where it matters."""
    moving = [r for r in records if matters(r)]
    parts = []
    for title, chosen in (
        (f"All {len(records)} networks with at least {LEAST_LAYERS} weight layers in the line", records),
        (f"The {len(moving)} of them whose trend the number of groups moves by {LEVER} or more", moving),
        (
            f"The {sum(map(reachable, moving))} of those whose trend is not negative with one group",
            [r for r in moving if reachable(r)],
        ),
    ):
        rows = [(strategy, *_cells(chosen, strategy)) for strategy in STRATEGIES] if chosen else []
        head = (
            "strategy",
            "median of the absolute trend",
            "90th percentile",
            f"within {NEAR}",
            "within 1",
            "keeps the limit",
            "and has the smallest groups",
            "median spread",
            "median group size",
        )
        parts.append(f"{title}:\n\n{table(head, rows)}")
    parts.append(
        "*Keeps the limit*: T is not below min(0, T of one group) − 1, what the rule allows. *And has the smallest "
        "groups*: of the strategies that do, within a tenth in the geometric mean over layers; this is what the rule "
        "looks for. *Median group size*: of the networks' geometric means."
    )
    return "\n\n".join(parts)


def _cells(records: Sequence[Record], strategy: str) -> tuple[str, ...]:
    sizes = [abs(trend(r, strategy)) for r in records]
    return (
        f"{median(sizes):.2f}",
        f"{np.quantile(sizes, 0.9):.2f}",
        percent(size <= NEAR for size in sizes),
        percent(size <= 1 for size in sizes),
        percent(keeps(r, strategy) for r in records),
        percent(strategy in finest(r, STRATEGIES) for r in records),
        f"{median(spread(r, strategy) for r in records):.2f}",
        f"{median(mean_size(r, strategy) for r in records):.1f}",
    )


def against(records: Sequence[Record]) -> str:
    """How often another choice is closer to zero, or also keeps the limit with groups as small."""
    rows = []
    for strategy in RIVALS:
        closer = [r for r in records if abs(trend(r, strategy)) < abs(trend(r, "isometric")) - 0.01]
        finer = [r for r in records if keeps(r, strategy) and mean_size(r, strategy) < 0.9 * mean_size(r, "isometric")]
        broken = [r for r in records if not keeps(r, strategy)]
        rows.append(
            (strategy, *(f"{len(found)} ({len(found) / len(records):.0%})" for found in (closer, finer, broken)))
        )
    head = (
        "strategy",
        "closer to zero than the plan",
        "keeps the limit with groups smaller by a tenth",
        "falls below the limit",
    )
    lost = [r for r in records if not keeps(r, "isometric")]
    flat = [r for r in records if not matters(r)]
    return (
        f"Of {len(records)} networks:\n\n{table(head, rows) if records else ''}\n\n"
        "The plan goes down to one e-fold below zero on purpose, to have more groups; so closer to zero is no fault by "
        f"the rule, but it is by the plain meaning of isometric. In {len(flat)} networks the trend moves by less than "
        f"{LEVER} from one group to one channel per group: there the number of groups hardly matters. Plans below the "
        f"limit: {len(lost)}{_named(lost)}."
    )


def kinds(records: Sequence[Record]) -> str:
    """The trends by kind of network."""
    rows = []
    everything = {"all": list(records)}
    for kind, mine in ({kind: [r for r in records if of(r)] for kind, of in KINDS.items()} | everything).items():
        if mine:
            middle = [f"{median(abs(trend(r, s)) for r in mine):.2f}" for s in STRATEGIES]
            within = [percent(abs(trend(r, s)) <= 1 for r in mine) for s in ("isometric", *RIVALS)]
            rows.append((kind, len(mine), *middle, *within, percent(not matters(r) for r in mine)))
    head = (
        "kind",
        "networks",
        *STRATEGIES,
        *(f"within 1: {s}" for s in ("isometric", *RIVALS)),
        f"moves by less than {LEVER}",
    )
    return f"Median of the absolute trend, and the share of networks within 1, by kind:\n\n{table(head, rows)}"


def cost(records: Sequence[Record]) -> str:
    """How many passes planning takes, and its processor time over that of a forward and backward pass."""
    rows = []
    for what, of in (
        ("passes, `isometric`", [r["passes"][0] for r in records]),
        ("passes, `uniform`", [r["passes"][1] for r in records]),
        ("time, `isometric`", [r["cost"][0] for r in records]),
        ("time, `uniform`", [r["cost"][1] for r in records]),
        ("time, `convert` with its trial", [r["cost"][2] for r in records]),
        ("time, `isometric`, where a pass takes 0.2 s or more", [r["cost"][0] for r in _slow(records)]),
        ("time, `uniform`, where a pass takes 0.2 s or more", [r["cost"][1] for r in _slow(records)]),
        ("time, `convert`, where a pass takes 0.2 s or more", [r["cost"][2] for r in _slow(records)]),
    ):
        if of:
            cells = (f"{value:.1f}" for value in (median(of), np.quantile(of, 0.9), max(of)))
            rows.append((what, len(of), *cells, percent(value <= 8 for value in of), percent(v <= 12 for v in of)))
    head = ("cost", "networks", "median", "90th percentile", "most", "8 or less", "12 or less")
    passes = Counter(r["passes"][0] for r in records)
    return (
        f"{table(head, rows)}\n\nNetworks by the number of passes of `isometric`: "
        + ", ".join(f"{number}: {passes[number]}" for number in sorted(passes))
        + ". A pass is a forward and a backward one; the first looks at the network as it is. Time: processor time on "
        "one thread, beside other work, over that of one forward and backward pass of the network as it is, the best "
        "of up to three; where a pass takes milliseconds the time of copying and of bookkeeping shows."
    )


def _slow(records: Sequence[Record]) -> list[Record]:
    return [r for r in records if r["pass_seconds"] >= 0.2]


def widths(records: Sequence[Record]) -> str:
    """What the plans choose, by number of channels; a network counts once in each row."""
    rows = []
    for channels in CHANNELS:
        cells = []
        for belongs in DEPTHWISE.values():
            sizes = [
                r["sizes_by_width"][str(channels)]
                for r in records
                if matters(r) and belongs(r) and str(channels) in r["sizes_by_width"]
            ]
            low, middle, high = np.quantile(sizes, (0.25, 0.5, 0.75)) if sizes else (0, 0, 0)
            cells.append(f"{middle:.0f} ({low:.0f}–{high:.0f}; {len(sizes)})" if sizes else "–")
        rows.append((channels, *cells))
    note = "Group sizes of the plans: median (quartiles; networks), layers with more than one position."
    return f"{note}\n\n{table(('channels', *DEPTHWISE), rows)}"


def edges(records: Sequence[Record]) -> str:
    """Networks in which the rule cannot do what it is for."""
    above = sorted((r for r in records if trend(r, "isometric") > 0.5), key=lambda r: -trend(r, "isometric"))
    below = sorted((r for r in records if trend(r, "layer") < -1), key=lambda r: trend(r, "layer"))
    return (
        f"**No allowed number of groups brings the trend down to 0.5** in {len(above)} networks"
        f"{_named(above, lambda r: trend(r, 'isometric'))}.\n\n"
        f"**One group is below −1 already** in {len(below)} networks, where the limit lies one lower"
        f"{_named(below, lambda r: trend(r, 'layer'))}."
    )


def _key(record: Record) -> str:
    return f"{record['library']}:{record['model']}"


def _named(records: Iterable[Record], value: Callable[[Record], float] | None = None) -> str:
    records = list(records)
    named = [_key(r) + (f" ({number(value(r))})" if value else "") for r in records[:LISTED]]
    rest = f" and {len(records) - LISTED} more" if len(records) > LISTED else ""
    return f": {', '.join(named)}{rest}" if named else ""
