"""Results → rich tables. What is printed here and what ``print(plan)`` shows is the same."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from .records import Site

if TYPE_CHECKING:
    from .results import Measurement, Plan

WIDTH = 140


def as_text(*parts: RenderableType, width: int = WIDTH) -> str:
    """Rich renderables as plain text of ``width`` columns."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    for part in parts:
        console.print(part)
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def plan_table(plan: Plan) -> tuple[RenderableType, ...]:
    """The table of a plan, its summary line, and what was not understood."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("kind", no_wrap=True)
    calibrated = any(site.residual is not None for site in plan.sites)
    for title in (
        "channels",
        "positions",
        "before",
        "ideal",
        "groups",
        "per group",
        "gain",
        *["residual"] * calibrated,
    ):
        table.add_column(title, justify="right", no_wrap=True)
    for run in _runs(plan.sites):
        site = run[0]
        name = site.name or "(the model)"
        table.add_row(
            name if len(run) == 1 else f"{name} … {run[-1].name} ({len(run)})",
            site.kind,
            str(site.num_channels),
            str(site.positions),
            "-" if site.groups_before is None else str(site.groups_before),
            _range([s.ideal for s in run]),
            str(site.num_groups),
            str(site.group_size),
            _range([s.gain for s in run], digits=2),
            *[_range([math.nan if s.residual is None else s.residual for s in run], digits=3)] * calibrated,
        )
    parts: list[RenderableType] = [table, Text(), Text(summary(plan))]
    parts += [Text(expectation(plan))] if plan.calibrated_on is not None else []
    parts += [Text(note) for note in _notes(plan.sites)]
    parts += [Text(f"not understood: {miss.name or '(the model)'} {miss.why}") for miss in plan.not_understood]
    return tuple(parts)


def summary(plan: Plan) -> str:
    """How many layers with which groups, what that does to the trend, and how far it was allowed to fall."""
    groups = [site.num_groups for site in plan.sites]
    widths = [site.group_size for site in plan.sites]
    budget = "" if plan.budget is None else f", budget ε = {plan.budget:.3g}"
    number = (
        f"{groups[0]} group{'s' * (groups[0] > 1)}" if len(set(groups)) == 1 else f"{min(groups)}–{max(groups)} groups"
    )
    allowed = "" if plan.lowest_trend is None else f" (allowed: {_signed(plan.lowest_trend)})"
    head = (
        f"{plan.model} on {plan.input}, {plan.strategy}{budget}: {len(plan.sites)} layers with {number} "
        f"(median {np.median(widths):g} channels per group)\n"
    )
    if math.isnan(plan.trend_before):
        return f"{head}from shapes alone, nothing was computed or measured, {plan.seconds:.1f} s{_why(plan)}"
    return (
        f"{head}trend of log u {_signed(plan.trend_before)} → {_signed(plan.trend_after)}{allowed}, "
        f"spread {plan.spread_before:.2f} → {_number(plan.spread_after)}, {plan.seconds:.1f} s{_why(plan)}"
    )


NEARLY_ALL, MOST = 0.05, 0.2
"""Residuals of the output up to which a calibrated network kept 95 and 85 % of its score (experiments/pretrained)."""


def expectation(plan: Plan) -> str:
    """What to expect of a calibrated network before it is trained, from the residual of its output."""
    found = f"calibrated on {plan.calibrated_on} samples"
    residual = plan.output_residual
    if residual is None:
        return found
    if residual <= NEARLY_ALL:
        then = "expect nearly all of the trained network's accuracy"
    elif residual <= MOST:
        then = "expect most of the trained network's accuracy; fine-tune it"
    else:
        other = "" if plan.strategy == "faithful" else "take strategy='faithful', or "
        then = f"expect to lose much of the accuracy; {other}fine-tune it"
    return f"{found}, residual of the output {residual:.3f}: {then}"


def _why(plan: Plan) -> str:
    """A line each on the one number for all layers and on an optimizer that does not care."""
    lines = ""
    if plan.one_number is not None:
        number = plan.one_number
        lines += f"\none number for all layers: num_groups={number} (norm_num_groups={number} in diffusers)"
    if plan.optimizer == "adam":
        lines += "\nAdam divides by the size of the gradient, so the number of groups matters little to it"
    return lines


def measurement_table(measured: Sequence[tuple[str, Measurement]]) -> tuple[RenderableType, ...]:
    """log u of every weight layer, one column a measurement, centered, and trend and spread below.

    log u is centered on each column's mean: a constant factor is only another learning rate.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("weight layer", overflow="fold")
    for title, _ in measured:
        table.add_column(f"log u, {title}" if title != "u" else "log u", justify="right")
    columns = []
    for _, one in measured:
        logs = {layer.name: math.log(layer.relative) for layer in one.layers}
        mean = float(np.mean(list(logs.values())))
        columns.append({name: value - mean for name, value in logs.items()})
    for layer in measured[0][1].layers:
        table.add_row(layer.name, *(_signed(column[layer.name]) if layer.name in column else "-" for column in columns))
    lines = [
        f"{title + ': ' if title != 'u' else ''}trend {_signed(one.trend)}, spread {one.spread:.2f} over "
        f"{len(one.layers)} weight layers" + (f"; no gradient: {', '.join(one.silent[:5])}" if one.silent else "")
        for title, one in measured
    ]
    return table, Text(), Text("\n".join(lines))


def comparison_table(plans: Sequence[Plan]) -> tuple[RenderableType, ...]:
    """One row a strategy: trend, spread, worst gain, range of groups, smallest group in elements."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("strategy")
    for title in ("trend", "spread", "worst gain", "groups", "median per group", "smallest group"):
        table.add_column(title, justify="right")
    for plan in plans:
        groups = [site.num_groups for site in plan.sites]
        table.add_row(
            plan.strategy,
            _signed(plan.trend_after),
            f"{plan.spread_after:.2f}",
            f"{max(site.gain for site in plan.sites):.2f}",
            f"{min(groups)}–{max(groups)}" if len(set(groups)) > 1 else str(groups[0]),
            f"{np.median([site.group_size for site in plan.sites]):g}",
            f"{min(site.group_elements for site in plan.sites)} elements",
        )
    first = plans[0]
    line = (
        f"{first.model} on {first.input}, seed {first.seed}; as it is: trend {_signed(first.trend_before)}, "
        f"spread {first.spread_before:.2f}. A trend of 0 is isometric from end to end."
    )
    return table, Text(), Text(line)


def _notes(sites: Sequence[Site]) -> list[str]:
    """One line a note, with the layers it is about."""
    about: dict[str, list[str]] = {}
    for site in sites:
        if site.note:
            about.setdefault(site.note, []).append(site.name or "(the model)")
    return [
        f"note: {names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)}: {note}" for note, names in about.items()
    ]


def _runs(sites: Sequence[Site]) -> list[list[Site]]:
    """Neighbours that differ only in their name, ideal and gain share a row."""
    runs: list[list[Site]] = []
    for site in sites:
        if runs and _look(runs[-1][0]) == _look(site):
            runs[-1].append(site)
        else:
            runs.append([site])
    return runs


def _look(site: Site) -> tuple[object, ...]:
    return (site.kind, site.num_channels, site.positions, site.groups_before, site.num_groups, site.note)


def _range(values: Sequence[float], digits: int = 1) -> str:
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return "–"
    low, high = (f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−") for value in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "–"


def _signed(value: float) -> str:
    """+0.12 or −0.12, and never −0.00."""
    if not math.isfinite(value):
        return "–"
    return f"{value:+.2f}".replace("-0.00", "+0.00").replace("-", "−")


def plan_text(plan: Plan) -> str:
    """Return the table of a plan as plain text."""
    return as_text(*plan_table(plan))


def measurement_text(measured: Sequence[tuple[str, Measurement]]) -> str:
    """Return the table of measurements as plain text."""
    return as_text(*measurement_table(measured))
