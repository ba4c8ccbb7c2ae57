"""Read plans in the first JSON format, in which the committed measurements of the first rule were written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from idealgroups.records import Site


@dataclass(frozen=True, kw_only=True)
class FirstPlan:
    """A plan of the first rule: trends are those of the least-squares line through all weights."""

    model: str
    strategy: str
    input: str
    seed: int
    budget: float | None
    trend_before: float
    trend_after: float
    sites: tuple[Site, ...]

    @property
    def num_groups(self) -> dict[str, int]:
        """{layer name: number of groups}."""
        return {site.name: site.num_groups for site in self.sites}


def read_first_plan(data: Mapping[str, Any]) -> FirstPlan:
    """Return the plan that ``data`` describes."""
    kept = ("model", "strategy", "input", "seed", "budget", "trend_before", "trend_after")
    derived = ("channels_per_group",)
    sites = tuple(Site(**{key: value for key, value in row.items() if key not in derived}) for row in data["sites"])
    return FirstPlan(**{key: data[key] for key in kept}, sites=sites)
