"""Results as rows of plain values: data frames of pandas, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .extras import require

if TYPE_CHECKING:
    from .results import Measurement, Plan

Row = Mapping[str, Any]


def plan_rows(plan: Plan) -> list[dict[str, Any]]:
    """Return one row for every normalization layer, in execution order."""
    rows = [
        {
            "layer": site.name,
            "kind": site.kind,
            "num_channels": site.num_channels,
            "groups_before": site.groups_before,
            "num_groups": site.num_groups,
            "group_size": site.group_size,
            "positions": site.positions,
            "group_elements": site.group_elements,
            "ideal": site.ideal,
            "gain": site.gain,
            "note": site.note,
        }
        for site in plan.sites
    ]
    if any(site.residual is not None for site in plan.sites):
        rows = [row | {"eps": site.eps, "residual": site.residual} for row, site in zip(rows, plan.sites, strict=True)]
    return rows


def measurement_rows(measurement: Measurement) -> list[dict[str, Any]]:
    """Return one row for every weight layer, in execution order; ``log_u`` is the natural logarithm, not centered."""
    return [
        {
            "layer": layer.name,
            "u": layer.relative,
            "log_u": math.log(layer.relative) if layer.relative > 0 else -math.inf,
            "norm": layer.norm,
            "numel": layer.numel,
            "in_line": layer.in_line,
        }
        for layer in measurement.layers
    ]


def comparison_rows(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """Return one row for every strategy."""
    return [
        {
            "strategy": plan.strategy,
            "trend": plan.trend_after,
            "spread": plan.spread_after,
            "worst_gain": max(site.gain for site in plan.sites),
            "fewest_groups": min(site.num_groups for site in plan.sites),
            "most_groups": max(site.num_groups for site in plan.sites),
            "median_group_size": float(np.median([site.group_size for site in plan.sites])),
            "smallest_group_elements": min(site.group_elements for site in plan.sites),
        }
        for plan in plans
    ]


def frame(rows: Sequence[Row]) -> Any:
    """Return a ``pandas.DataFrame``.

    Raises:
        IdealGroupsError: pandas is not installed.
    """
    return require("pandas", "data frames", "pandas").DataFrame(list(rows))


def to_csv(rows: Sequence[Row]) -> str:
    """Return rows as CSV with a header; nothing is rounded, and None is empty.

    >>> to_csv([{"layer": "bn1", "num_groups": 8, "note": None}])
    'layer,num_groups,note\\nbn1,8,\\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(rows: Sequence[Row]) -> str:
    """Return rows as a table of Markdown, numbers with three digits; columns that are empty in every row are left out.

    >>> print(to_markdown([{"layer": "a|b", "gain": 0.12345, "note": ""}]))
    | layer | gain |
    | --- | ---: |
    | a\\|b | 0.123 |
    """
    names = [name for name in rows[0] if any(row[name] not in ("", None) for row in rows)]
    numeric = [all(isinstance(row[name], int | float | None) for row in rows) for name in names]
    lines = [names, ["---:" if number else "---" for number in numeric]]
    lines += [[_cell(row[name]) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
