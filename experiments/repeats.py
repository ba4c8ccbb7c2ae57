"""Does the median of several plans move less, and where does the spread of a plan come from?

    python -m experiments.repeats run [NETWORK ...]     # measures what is not measured yet
    python -m experiments.repeats report                # writes the table of docs/choices.md

The cases are those of `experiments.stability` at 64 px. Each is planned three times with other inputs and another
random projection, as `idealgroups.repeat` does, on the same initial weights; the median is taken layer by layer over
one of them and over all three. In the base case each source of chance is also changed alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median, pstdev
from typing import Any

import numpy as np
import torch
from cyclopts import App
from rich.progress import track

from experiments.common.jsonl import append_records, load_records
from experiments.common.markdown import replace_section, table
from experiments.stability import NETWORKS, Case, cases, inputs
from idealgroups.planner import Survey
from idealgroups.theory.formulas import divisors

app = App(help=__doc__)
RESULTS = Path(__file__).with_suffix(".jsonl")
REPORT = Path(__file__).parents[1] / "docs" / "choices.md"
SHAKY = ("mobilenet_v2", "unet")
TIMES = 3
SEEDS = 5
SOURCES = ("weights", "inputs", "projection")


@dataclass(frozen=True)
class Draw:
    """One plan: a case, whose ``seed`` is that of the weights, and the seeds of the inputs and of the projection."""

    case: Case
    inputs: int
    projection: int


def draws(network: str) -> list[Draw]:
    """Return all plans of a network, without doubles."""
    at_64 = [case for case in cases(network) if case.px == 64 and case.rule == "isometric"]
    found = [Draw(case, *2 * (case.seed + 10 * k,)) for k in range(TIMES) for case in at_64]
    base = Draw(Case(network, 64), 0, 0)
    for seed in range(SEEDS):
        found += [replace(base, case=Case(network, 64, seed=seed))]
        found += [replace(base, inputs=seed), replace(base, projection=seed), Draw(base.case, 10 * seed, 10 * seed)]
    return list(dict.fromkeys(found))


def measure(draw: Draw) -> dict[str, Any]:
    """Return the record of a plan: the group size of every layer."""
    case = draw.case
    torch.manual_seed(case.seed)
    model = NETWORKS[case.network](case.classes)
    with Survey(model, inputs(replace(case, seed=draw.inputs)), seed=draw.projection) as survey:
        plan = survey.plan()
    return {"draw": asdict(draw), "channels": _channels(plan.sites), "sizes": [site.group_size for site in plan.sites]}


def _channels(sites: Any) -> list[int]:
    return [site.num_channels for site in sites]


@app.command
def run(*networks: str) -> None:
    """Measure what is not measured yet."""
    done = {json.dumps(record["draw"]) for record in load_records(RESULTS)}
    todo = [draw for name in networks or SHAKY for draw in draws(name) if json.dumps(asdict(draw)) not in done]
    for draw in track(todo, description="planning"):
        append_records(RESULTS, [measure(draw)])


@app.command
def report() -> None:
    """Write the tables."""
    records = load_records(RESULTS)
    replace_section(REPORT, "repeats", f"{medians(records)}\n\n{sources(records)}")


def medians(records: list[dict[str, Any]]) -> str:
    """Return a row for each network and number of plans whose median is taken."""
    rows = []
    for network in _networks(records):
        by_case: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for record in sorted(_of(records, network), key=lambda r: r["draw"]["inputs"]):
            draw = record["draw"]
            if draw["inputs"] == draw["projection"] and (draw["inputs"] - draw["case"]["seed"]) % 10 == 0:
                by_case[json.dumps(draw["case"])].append(record)
        whole = [found for found in by_case.values() if len(found) >= TIMES]
        for count in (1, TIMES):
            plans = [_indices(found[:count]) for found in whole]
            sizes = [_sizes(found[0]["channels"], plan) for found, plan in zip(whole, plans, strict=True)]
            middle = [median(size) for size in sizes]
            means = [float(np.exp(np.mean(np.log(size)))) for size in sizes]
            rows.append(
                (
                    *(network, len(whole), count),
                    f"{min(middle):g} to {max(middle):g}",
                    f"{min(means):.1f} to {max(means):.1f}",
                    f"{within(plans):.0%}",
                )
            )
    head = ("network", "cases", "plans in a median", "median group size", "geometric mean", "layers within one divisor")
    return table(head, rows)


def sources(records: list[dict[str, Any]]) -> str:
    """Return a row for each network and source of chance that is changed alone, and for inputs and projection."""
    rows = []
    for network in _networks(records):
        base = asdict(Draw(Case(network, 64), 0, 0))
        for source in (*SOURCES, "inputs and projection"):
            mine = [r for r in _of(records, network) if _changed(r["draw"], base) in (source, "nothing")]
            if len(mine) < SEEDS:
                continue
            plans = [_indices([record]) for record in mine]
            means = [float(np.mean(np.log2(record["sizes"]))) for record in mine]
            moved = float(np.sqrt(np.mean(np.var(np.array(plans), axis=0))))
            rows.append((network, source, len(mine), f"{within(plans):.0%}", f"{moved:.2f}", f"{pstdev(means):.2f}"))
    head = (
        *("network", "changed alone", "plans", "layers within one divisor"),
        *("deviation of a layer, divisors", "deviation of the mean log2 size"),
    )
    return table(head, rows)


def within(plans: list[list[float]]) -> float:
    """Return the share of layers whose group size is at most one divisor away from the median over the plans.

    >>> within([[0, 1], [0, 1], [2, 1]])
    0.8333333333333334
    """
    found = np.array(plans)
    return float(np.mean(np.abs(found - np.median(found, axis=0)) <= 1))


def _indices(records: list[dict[str, Any]]) -> list[float]:
    """The median over plans of which divisor of its channels a layer's group size is."""
    layers = zip(records[0]["channels"], *(record["sizes"] for record in records), strict=True)
    return [median([divisors(channels).index(size) for size in sizes]) for channels, *sizes in layers]


def _sizes(channels: list[int], indices: list[float]) -> list[int]:
    return [int(divisors(width)[int(index)]) for width, index in zip(channels, indices, strict=True)]


def _changed(draw: dict[str, Any], base: dict[str, Any]) -> str:
    """Which sources differ from the base case; "" if it is another case."""
    if draw["case"] | {"seed": 0} != base["case"]:
        return ""
    seeds = {"weights": draw["case"]["seed"], "inputs": draw["inputs"], "projection": draw["projection"]}
    moved = [source for source, seed in seeds.items() if seed]
    if len(moved) == 2 and moved == ["inputs", "projection"] and draw["inputs"] == draw["projection"]:
        return "inputs and projection"
    return moved[0] if len(moved) == 1 else "" if moved else "nothing"


def _networks(records: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(record["draw"]["case"]["network"] for record in records))


def _of(records: list[dict[str, Any]], network: str) -> list[dict[str, Any]]:
    return [record for record in records if record["draw"]["case"]["network"] == network]


if __name__ == "__main__":
    app()
