"""The result of planning: frozen records, a table when printed, JSON in and out. No torch."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import IdealGroupsError


@dataclass(frozen=True)
class Site:
    """One normalization layer and its number of groups.

    ``positions``: S of the smallest call. ``groups_before``: None where the layer was no group norm (batch norm, say).
    ``ideal``: the real-valued number of groups before rounding to a divisor of ``num_channels``. ``gain``: the grouping
    gain b at the choice, against one group. ``eps``: of the group norm; None for the layer's own. ``residual``: after
    calibration, the squared error against the trained layer's output, as a share of that output's variance.
    """

    name: str
    kind: str
    num_channels: int
    positions: int
    groups_before: int | None
    ideal: float
    num_groups: int
    gain: float
    note: str = ""
    eps: float | None = None
    residual: float | None = None

    @property
    def channels_per_group(self) -> int:
        """c = C / G."""
        return self.num_channels // self.num_groups

    @property
    def group_elements(self) -> int:
        """m = c·S, the elements one group normalizes at the planned input size."""
        return self.channels_per_group * self.positions


@dataclass(frozen=True)
class NotUnderstood:
    """Something that normalizes, or should have, and could not be planned; ``why`` is a sentence."""

    name: str
    why: str


@dataclass(frozen=True)
class Plan:
    """A number of groups for every normalization layer of one network. ``print(plan)`` is a table.

    ``budget``: ε, the gain each layer may have; None for strategies without one. ``trend_*`` and ``spread_*``: of
    log u over the weight layers in execution order, before (the model as it was) and after (with this plan).
    Where nothing was measured they are NaN. ``lowest_trend``: how far the trend was allowed to fall, None where the
    strategy does not measure. ``one_number``: the most groups, the same in all layers, that are predicted to keep the
    trend above that. ``optimizer``: whose steps the line is about.
    ``calibrated_on``: how many samples the converted network was calibrated on; ``output_residual``: how far its output
    was from the trained network's on them, as a residual. None where it was not calibrated.
    """

    model: str
    strategy: str
    input: str
    seed: int
    budget: float | None
    trend_before: float
    trend_after: float
    spread_before: float
    spread_after: float
    seconds: float
    sites: tuple[Site, ...]
    not_understood: tuple[NotUnderstood, ...] = ()
    lowest_trend: float | None = None
    one_number: int | None = None
    optimizer: str = "sgd"
    calibrated_on: int | None = None
    output_residual: float | None = None

    def __str__(self) -> str:
        from .tables import as_text, plan_table

        return as_text(*plan_table(self))

    @property
    def num_groups(self) -> dict[str, int]:
        """{layer name: number of groups}."""
        return {site.name: site.num_groups for site in self.sites}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready; infinite and undefined numbers become None, which :meth:`from_dict` reads as NaN."""
        data = dataclasses.asdict(self)
        for site, record in zip(self.sites, data["sites"], strict=True):
            last = {key: record.pop(key) for key in ("gain", "note", "eps", "residual")}
            record |= {"channels_per_group": site.channels_per_group} | last
        clean: dict[str, Any] = _finite(data)
        return clean

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_json` to ``path``; the file is complete or not there."""
        path = _path(path)
        partial = path.parent / (path.name + ".partial")
        try:
            partial.write_text(self.to_json() + "\n")
            partial.replace(path)
        except OSError as error:
            if partial.is_file():
                partial.unlink()
            raise IdealGroupsError(f"cannot write the plan to {path}: {error.strerror or error}.") from None

    @classmethod
    def from_dict(cls, data: Any) -> Plan:
        """The inverse of :meth:`to_dict`.

        Raises:
            IdealGroupsError: a key is missing or a value has the wrong type.
        """
        try:
            sites = tuple(Site(**_fields(Site, record)) for record in data["sites"])
            missed = tuple(NotUnderstood(**_fields(NotUnderstood, record)) for record in data["not_understood"])
            plan = cls(**_fields(cls, data | {"sites": sites, "not_understood": missed}))
        except (KeyError, TypeError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise IdealGroupsError(
                f"this is not a plan of idealgroups: {why}; make one with `idealgroups plan MODEL --save plan.json`."
            ) from None
        for site in sites:
            if min(site.num_groups, site.num_channels) < 1 or site.num_channels % site.num_groups:
                raise IdealGroupsError(
                    f"the plan gives {site.name} {site.num_groups} groups, which do not divide its {site.num_channels} "
                    "channels; make the plan again with `idealgroups plan`."
                )
        return plan

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan that :meth:`save` wrote.

        Raises:
            IdealGroupsError: no such file, no JSON, or no plan.
        """
        try:
            data = json.loads(_path(path).read_text())
        except OSError as error:
            raise IdealGroupsError(f"cannot read the plan {path}: {error.strerror or error}.") from None
        except ValueError:
            raise IdealGroupsError(
                f"{path} is not JSON; make a plan with `idealgroups plan MODEL --save {path}`."
            ) from None
        return cls.from_dict(data)


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int, type(None)),
    "int | None": (int, type(None)),
    "float | None": (float, int, type(None)),
    "bool | None": (bool, type(None)),
}
"""What JSON may hold for an annotation; None stands for a float that is not finite."""


def _fields(cls: type[Any], record: Any) -> dict[str, Any]:
    """The fields of dataclass ``cls`` from ``record``; KeyError where one is missing, TypeError for another type."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name not in record and field.default is not dataclasses.MISSING:
            continue  # a plan saved before the field was there
        value: Any = record[field.name]
        annotation = str(field.type)  # a string: annotations are not evaluated here
        allowed = _TYPES.get(annotation, (object,))
        if not isinstance(value, allowed) or (isinstance(value, bool) and not {bool, object} & {*allowed}):
            raise TypeError(f"{field.name} is {value!r}, not {annotation}")
        fields[field.name] = value
        if annotation == "float":
            fields[field.name] = math.nan if value is None else float(record[field.name])
    return fields


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _path(path: Any) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise IdealGroupsError(f"the path of a plan is a str or a Path, not {path!r}.") from None
