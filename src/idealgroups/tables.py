"""Write plans, measurements and comparisons as plain text tables that end with a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import verdict
from .names import full_name, short_names
from .records import Site
from .text import (
    columns,
    decimal,
    for_output,
    interval,
    output_width,
    paragraph,
    plural,
    room_for_names,
    signed,
)
from .theory.formulas import MIN_GROUP_CHANNELS
from .theory.strategies import same_for_every_optimizer

if TYPE_CHECKING:
    from .results import Measurement, Plan


_TO = "\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}"


def plan_text(plan: Plan, width: int | None = None, wide: bool = False) -> str:
    """Return the table of a plan, a summary, what was not understood, and the verdict.

    Args:
        plan: to be written.
        width: columns; default the terminal's, else 80. The names of layers are shortened to fit.
        wide: show all columns, in as many characters as they need.
    """
    width = output_width() if width is None else width
    lines = [*_plan_rows(plan, None if wide else width), ""]
    lines += [paragraph(text, width) for text in summary_of(plan)]
    lines += [paragraph(f"note: {note}", width) for note in notes_of(plan.sites)]
    for miss in plan.not_understood:
        lines.append(paragraph(f"not understood: {miss.name or 'the model'} {miss.why}", width))
    if plan.measured_share is not None and plan.measured_share < 0.995:
        lines.append(paragraph(verdict.share(plan.measured_share), width))
    if plan.samples_coupled is not None:
        lines.append(paragraph(verdict.coupling(plan.samples_coupled), width))
    lines.append(paragraph(f"verdict: {verdict_of(plan)}", width))
    return for_output("\n".join(lines))


def measurement_text(measured: Sequence[tuple[str, Measurement]], width: int | None = None) -> str:
    """Return log u of every weight layer, a column for each measurement, then trends, spreads and verdicts.

    Every column has mean zero, because a constant factor of u is a change of the learning rate.

    Args:
        measured: titles and measurements of one network; the title of a single one is ignored.
        width: columns; default the terminal's, else 80. The names of layers are shortened to fit.
    """
    width = output_width() if width is None else width
    alone = len(measured) == 1
    header = ["weight layer", *("log u" if alone else f"log u, {title}" for title, _ in measured)]
    centered = [_centered(one) for _, one in measured]
    rows = [
        [layer.name, *(signed(column[layer.name]) if layer.name in column else "-" for column in centered)]
        for layer in measured[0][1].layers
    ]
    room = room_for_names(header, rows, width)
    names = short_names([[layer.name] for layer in measured[0][1].layers], room)
    lines = [*columns(header, [[name, *numbers] for name, (_, *numbers) in zip(names, rows, strict=True)]), ""]
    for title, one in measured:
        prefix = "" if alone else f"{title}: "
        lines.append(
            paragraph(
                f"{prefix}trend of log u {signed(one.trend)}, spread {decimal(one.spread, 2)} over "
                f"{plural(len(one.layers), 'weight layer')}",
                width,
            )
        )
        if one.silent:
            more = ", …" if len(one.silent) > 5 else ""
            lines.append(paragraph(f"{prefix}no gradient: {', '.join(one.silent[:5])}{more}", width))
        lines.append(paragraph(f"verdict{'' if alone else ' ' + title}: {verdict.measured(one.trend)}", width))
    return for_output("\n".join(lines))


def comparison_text(plans: Sequence[Plan], width: int | None = None) -> str:
    """Return one row for each plan of one network, with a mark at the one to take, and why to take it."""
    width = output_width() if width is None else width
    header, cells = comparison_cells(plans)
    take = verdict.chosen([trends_of(plan) for plan in plans])
    rows = [[f"{'>' if index == take else ' '} {name}", *row] for index, (name, *row) in enumerate(cells)]
    texts = [*comparison_texts(plans), f"verdict: {comparison_verdict(plans)}"]
    header[0] = f"  {header[0]}"
    return for_output("\n".join([*columns(header, rows), "", *(paragraph(text, width) for text in texts)]))


def comparison_cells(plans: Sequence[Plan]) -> tuple[list[str], list[list[str]]]:
    """Return the header and one row of cells for each plan of one network."""
    header = ["strategy", "trend", "spread", "worst gain", "groups", "group size", "smallest"]
    return header, [
        [
            plan.strategy,
            signed(plan.trend_after),
            decimal(plan.spread_after, 2),
            decimal(max(site.gain for site in plan.sites), 2),
            interval([site.num_groups for site in plan.sites], 0),
            f"{np.median([site.group_size for site in plan.sites]):g}",
            str(min(site.group_elements for site in plan.sites)),
        ]
        for plan in plans
    ]


def comparison_texts(plans: Sequence[Plan]) -> list[str]:
    """Return what the columns of a comparison mean, and what was compared."""
    first = plans[0]
    return [
        "group size: the median over the layers, in channels. smallest: the elements of the smallest group.",
        f"{first.model} on {first.input}, seed {first.seed}. As it is: trend {signed(first.trend_before)}, spread "
        f"{decimal(first.spread_before, 2)}.",
        *optimizer_of(plans),
    ]


def comparison_verdict(plans: Sequence[Plan]) -> str:
    """Say in words which plan to take."""
    return verdict.compared([plan.strategy for plan in plans], [trends_of(plan) for plan in plans])


def trends_of(plan: Plan) -> verdict.Trends:
    """Return what the verdict about a plan needs."""
    return verdict.Trends(
        before=plan.trend_before,
        after=plan.trend_after,
        lowest=plan.lowest_trend,
        one=plan.one_group_trend,
        budget=plan.budget,
        grouped=all(site.groups_before is not None for site in plan.sites),
        gradients="gradients per weight" if plan.optimizer == "dp-sgd" else "relative gradients",
        finest=all(site.group_size == MIN_GROUP_CHANNELS for site in plan.sites),
    )


def _plan_rows(plan: Plan, width: int | None) -> list[str]:
    """Return the lines of a plan's table; None for ``width`` means all columns, in full."""
    wide = width is None
    runs = runs_of(plan.sites)
    cells = {
        "channels": [str(run[0].num_channels) for run in runs],
        "before": ["-" if run[0].groups_before is None else str(run[0].groups_before) for run in runs],
        "groups": [str(run[0].num_groups) for run in runs],
        "group size": [str(run[0].group_size) for run in runs],
    }
    if all(site.groups_before is None for site in plan.sites) and not wide:
        del cells["before"]
    if any(site.residual is not None for site in plan.sites):
        cells["residual"] = [residual_of(run) for run in runs]
    if wide:
        cells |= {
            "ideal": [interval([site.ideal for site in run], 1) for run in runs],
            "gain": [interval([site.gain for site in run], 2) for run in runs],
            "positions": [str(run[0].positions) for run in runs],
            "kind": [run[0].kind for run in runs],
        }
    header = ["layer", *cells]
    numbers = list(zip(*cells.values(), strict=True))
    of_rows = [[site.name or "(the model)" for site in run] for run in runs]
    if width is None:
        names = [full_name(row) for row in of_rows]
    else:
        names = short_names(of_rows, room_for_names(header, [["", *row] for row in numbers], width))
    return columns(header, [[name, *row] for name, row in zip(names, numbers, strict=True)])


def summary_of(plan: Plan) -> list[str]:
    """Return sentences: what was planned, the trend, the calibration, the one number."""
    sizes = [site.group_size for site in plan.sites]
    groups = [site.num_groups for site in plan.sites]
    number = plural(groups[0], "group") if len(set(groups)) == 1 else f"{interval(groups, 0)} groups"
    output = f" → {plan.output}" if plan.output else ""
    texts = [
        f"{plan.model} on {plan.input}{output}, {plan.strategy}: {plural(len(plan.sites), 'layer')} with {number}, "
        f"median group size {np.median(sizes):g}, {decimal(plan.seconds, 1)}\N{NO-BREAK SPACE}s"
    ]
    if math.isfinite(plan.trend_after):
        limit = "" if plan.lowest_trend is None else f" (limit {signed(plan.lowest_trend)})"
        line = "log v" if plan.optimizer == "dp-sgd" else "log u"
        texts.append(
            f"trend of {line} {signed(plan.trend_before)}{_TO}{signed(plan.trend_after)}{limit}, "
            f"spread {decimal(plan.spread_before, 2)}{_TO}{decimal(plan.spread_after, 2)}"
        )
    if plan.calibrated_on is not None:
        residual = "" if plan.output_residual is None else f", residual of the output {plan.output_residual:.3f}"
        texts.append(f"calibrated on {plural(plan.calibrated_on, 'sample')}{residual}")
    if plan.one_number is not None:
        one = plan.one_number
        widths = [site.num_channels for site in plan.sites]
        bound = one == math.gcd(*widths) < min(widths)
        why = "; no larger one divides every width" if bound else ""
        texts.append(f"one number for all layers: num_groups={one} (norm_num_groups={one} in diffusers){why}")
    texts += optimizer_of([plan])
    if plan.optimizer == "adam":
        texts.append("Adam divides by the size of the gradient, so the number of groups matters little to it.")
    return texts


def optimizer_of(plans: Sequence[Plan]) -> list[str]:
    """Return a sentence on the plans of one network that are the same without ``optimizer="dp-sgd"``, if there are any.

    The same for Adam is said of every plan.
    """
    idle = [plan.strategy for plan in plans if same_for_every_optimizer(plan.strategy)]
    if plans[0].optimizer != "dp-sgd" or not idle:
        return []
    why = "shapes alone" if "faithful" not in idle else "what the trained network puts out"
    return [
        f"optimizer='dp-sgd' did not change the groups of {', '.join(idle)}, which follow from {why}; isometric and "
        "uniform use it."
    ]


def verdict_of(plan: Plan) -> str:
    """Say in words what the plan achieves."""
    if plan.calibrated_on is not None:
        return verdict.calibrated(plan.output_residual, plan.strategy == "faithful")
    return verdict.for_scratch(verdict.planned(trends_of(plan)), plan.trained)


def notes_of(sites: Sequence[Site]) -> list[str]:
    """Return one line for each note, with the layers that it is about."""
    about: dict[str, list[str]] = {}
    for site in sites:
        if site.note:
            about.setdefault(site.note, []).append(site.name or "the model")
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {note}" for note, names in about.items()
    ]


def runs_of(sites: Sequence[Site]) -> list[list[Site]]:
    """Put neighbors into one row if they differ only in name, ideal, gain and residual."""
    runs: list[list[Site]] = []
    for site in sites:
        if runs and _look(runs[-1][0]) == _look(site):
            runs[-1].append(site)
        else:
            runs.append([site])
    return runs


def _look(site: Site) -> tuple[object, ...]:
    return (site.kind, site.num_channels, site.positions, site.groups_before, site.num_groups, site.note)


def residual_of(run: Sequence[Site]) -> str:
    """Return the residuals of neighboring layers, or a dash."""
    residuals = [site.residual for site in run if site.residual is not None]
    return interval(residuals, 3) if residuals else "-"


def _centered(measured: Measurement) -> dict[str, float]:
    """Return log u of every layer, less their mean; u = 0 gives minus infinity, which is left out of the mean."""
    logs = {layer.name: math.log(layer.relative) if layer.relative > 0 else -math.inf for layer in measured.layers}
    finite = [value for value in logs.values() if math.isfinite(value)]
    mean = float(np.mean(finite)) if finite else 0.0
    return {name: value - mean for name, value in logs.items()}
