"""Plans and measurements: frozen records, a table when printed, JSON in and out."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .checking import check_types, from_mapping
from .conversion.surgery import replace_norms
from .errors import IdealGroupsError
from .extras import require
from .files import read_text, write_text
from .frames import frame, measurement_rows, plan_rows, to_csv, to_markdown
from .markup import measurement_html, plan_html
from .records import Gradients, NotUnderstood, Site, WeightGradient
from .report import report
from .sandbox.copying import Model
from .tables import measurement_text, plan_text

FORMAT = 2
"""The number of the JSON format of a plan. Format 1 was written by idealgroups 0.1.0, without a number."""

_NO_PLAN = "make a plan with `idealgroups plan MODEL --save FILE`"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A number of groups for every normalization layer of one network. ``print(plan)`` is a table.

    ``before`` and ``after``: the gradients of the model as it was and with this plan; None if nothing was measured.
    ``budget``: ε, the gain each layer may have; None for strategies without one. ``lowest_trend``: how far the
    trend was allowed to fall. ``one_group_trend``: the trend with one group in every layer. ``one_number``: the
    most groups, the same in all layers, that are predicted to keep the trend above the lowest. ``calibrated_on``:
    how many samples the converted network was calibrated on. ``output_residual``: how far its output was from the
    trained network's. ``optimizer``: whose steps are balanced. ``output``: the shape of the model's output.
    ``fingerprint``: of the network, by the names and shapes of its weights. ``measured_share``: the share of the
    network's parameters whose gradients were measured. ``samples_coupled``: whether the converted network lets one
    sample of a batch change what it computes for another; None if that was not tested. ``trained``: whether the
    model held running statistics from training. ``made_with``: the versions of idealgroups and torch. ``seconds``
    and ``made_with`` do not count in ``==``.

    Raises:
        IdealGroupsError: a field has the wrong type, or two sites have the same name.
    """

    model: str
    strategy: str
    input: str
    seed: int
    sites: tuple[Site, ...]
    before: Gradients | None = None
    after: Gradients | None = None
    not_understood: tuple[NotUnderstood, ...] = ()
    budget: float | None = None
    lowest_trend: float | None = None
    one_group_trend: float | None = None
    one_number: int | None = None
    calibrated_on: int | None = None
    output_residual: float | None = None
    optimizer: str = "sgd"
    output: str = ""
    fingerprint: str = ""
    measured_share: float | None = None
    samples_coupled: bool | None = None
    trained: bool = False
    made_with: str = field(default="", compare=False)
    seconds: float = field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        check_types(self)
        if not self.sites:
            raise IdealGroupsError("a plan needs at least one normalization layer; it has no sites.")
        names = [site.name for site in self.sites]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise IdealGroupsError(f"the plan names the layer {twice!r} twice.")

    def __str__(self) -> str:
        return plan_text(self)

    def _repr_html_(self) -> str:
        return plan_html(self)

    @property
    def num_groups(self) -> dict[str, int]:
        """{layer name: number of groups}."""
        return {site.name: site.num_groups for site in self.sites}

    @property
    def group_sizes(self) -> dict[str, int]:
        """{layer name: channels of a group}."""
        return {site.name: site.group_size for site in self.sites}

    @property
    def trend_before(self) -> float:
        """Trend of the model as it was; NaN if nothing was measured."""
        return math.nan if self.before is None else self.before.trend

    @property
    def trend_after(self) -> float:
        """Trend with this plan; NaN if nothing was measured."""
        return math.nan if self.after is None else self.after.trend

    @property
    def spread_before(self) -> float:
        """Spread of the model as it was; NaN if nothing was measured."""
        return math.nan if self.before is None else self.before.spread

    @property
    def spread_after(self) -> float:
        """Spread with this plan; NaN if nothing was measured."""
        return math.nan if self.after is None else self.after.spread

    def apply(
        self,
        model: Model,
        *,
        inplace: bool = False,
        include: str | Collection[str] | None = None,
        exclude: str | Collection[str] | None = None,
    ) -> Model:
        """Return ``model`` with this plan's groups, as :func:`idealgroups.apply` does."""
        return replace_norms(model, self, inplace=inplace, include=include, exclude=exclude).model

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw groups and group sizes over depth, below the gradients before and with the plan.

        Args:
            path: write the figure to this PNG, SVG or PDF file.

        Returns:
            The ``matplotlib.figure.Figure``; a notebook shows it.

        Raises:
            IdealGroupsError: matplotlib is not installed, or the file cannot be written.
        """
        require("matplotlib", "plots", "'idealgroups[plot]'")
        from .pictures.figures import plan_figure
        from .pictures.style import finish

        return finish(plan_figure(self), path)

    def to_frame(self) -> Any:
        """Return a ``pandas.DataFrame`` with one row for every layer, in execution order.

        Raises:
            IdealGroupsError: pandas is not installed.
        """
        return frame(plan_rows(self))

    def to_csv(self) -> str:
        """Return one line for every layer, as CSV with a header."""
        return to_csv(plan_rows(self))

    def to_markdown(self) -> str:
        """Return one row for every layer, as a table of Markdown."""
        return to_markdown(plan_rows(self))

    def save_report(self, path: str | Path) -> None:
        """Write one HTML file to share: the verdict, plots, the table, how to apply it. It loads nothing else.

        Raises:
            IdealGroupsError: matplotlib is not installed, or the file cannot be written.
        """
        write_text(path, report(self), "the report")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, JSON-ready; infinite and undefined numbers become None, which loading reads as NaN."""
        data = {"format": FORMAT} | dataclasses.asdict(self)
        for site, record in zip(self.sites, data["sites"], strict=True):
            record["group_size"] = site.group_size
        clean: dict[str, Any] = _finite(data)
        return clean

    def to_json(self) -> str:
        """Return one JSON object."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_json` to ``path``; the file is complete or as it was.

        Raises:
            IdealGroupsError: the file cannot be written.
        """
        write_text(path, self.to_json() + "\n", "the plan")

    @classmethod
    def from_dict(cls, data: Any) -> Plan:
        """Make a plan from what :meth:`to_dict` returned.

        Raises:
            IdealGroupsError: a key is missing or unknown, or a value has the wrong type.
        """
        if not isinstance(data, dict) or "sites" not in data:
            raise IdealGroupsError(f"this is not a plan of idealgroups; {_NO_PLAN}.")
        if data.get("format") != FORMAT:
            raise IdealGroupsError(
                f"this plan has format {data.get('format', 1)!r:.20}, and this version of idealgroups reads format "
                f"{FORMAT}; {_NO_PLAN}."
            )
        rows = dict(data)
        del rows["format"]
        rows["sites"] = tuple(from_mapping(Site, row, ("group_size",)) for row in _listed(data, "sites"))
        missed = _listed(data, "not_understood")
        rows["not_understood"] = tuple(from_mapping(NotUnderstood, row) for row in missed)
        for key in ("before", "after"):
            if data.get(key) is not None:
                rows[key] = _gradients(data[key])
        return from_mapping(cls, rows)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Make a plan from what :meth:`to_json` returned.

        Raises:
            IdealGroupsError: no JSON, or no plan.
        """
        return cls.from_dict(_json(text, "this"))

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan that :meth:`save` wrote.

        Raises:
            IdealGroupsError: no such file, no JSON, or no plan.
        """
        return cls.from_dict(_json(read_text(path, "the plan"), str(path)))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """u = ‖∂L/∂W‖_F / ‖W‖_F of every weight layer, in execution order. ``print`` it for a table."""

    model: str
    input: str
    seed: int
    gradients: Gradients
    fingerprint: str = ""

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def layers(self) -> tuple[WeightGradient, ...]:
        """The weight layers that a gradient reached, in execution order."""
        return self.gradients.layers

    @property
    def silent(self) -> tuple[str, ...]:
        """The weight layers that no gradient reached."""
        return self.gradients.silent

    @property
    def trend(self) -> float:
        """Last minus first value of the line through log u; 0 is isometric from end to end."""
        return self.gradients.trend

    @property
    def spread(self) -> float:
        """Standard deviation of log u over the layers of the line."""
        return self.gradients.spread

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the relative gradient of every weight layer over depth, with its line.

        Args:
            path: write the figure to this PNG, SVG or PDF file.

        Returns:
            The ``matplotlib.figure.Figure``; a notebook shows it.

        Raises:
            IdealGroupsError: matplotlib is not installed, or the file cannot be written.
        """
        require("matplotlib", "plots", "'idealgroups[plot]'")
        from .pictures.figures import measurement_figure
        from .pictures.style import finish

        return finish(measurement_figure([("u", self)]), path)

    def to_frame(self) -> Any:
        """Return a ``pandas.DataFrame`` with one row for every weight layer, in execution order.

        Raises:
            IdealGroupsError: pandas is not installed.
        """
        return frame(measurement_rows(self))

    def to_csv(self) -> str:
        """Return one line for every weight layer, as CSV with a header."""
        return to_csv(measurement_rows(self))

    def to_markdown(self) -> str:
        """Return one row for every weight layer, as a table of Markdown."""
        return to_markdown(measurement_rows(self))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, JSON-ready, with the trend and the spread."""
        data = dataclasses.asdict(self)
        measured = data.pop("gradients") | {"trend": self.trend, "spread": self.spread}
        clean: dict[str, Any] = _finite(data | measured)
        return clean

    def __str__(self) -> str:
        return measurement_text([("u", self)])

    def _repr_html_(self) -> str:
        return measurement_html(self)


def _gradients(data: Any) -> Gradients:
    if not isinstance(data, dict):
        raise IdealGroupsError(f"the gradients of a plan are an object with layers and silent, not {data!r:.60}.")
    rows = dict(data)
    rows["layers"] = tuple(from_mapping(WeightGradient, row) for row in _listed(rows, "layers"))
    rows["silent"] = tuple(_listed(rows, "silent"))
    return from_mapping(Gradients, rows)


def _listed(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list | tuple):
        raise IdealGroupsError(f"{key} of a plan must be a list, not {value!r:.60}.")
    return list(value)


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError, TypeError):
        raise IdealGroupsError(f"{what} cannot be read as JSON, so it holds no plan; {_NO_PLAN}.") from None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
