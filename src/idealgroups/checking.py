"""Check the types of a frozen record, whether it was made by hand or loaded from a file."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection, Mapping
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from .errors import IdealGroupsError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


def check_types(record: DataclassInstance) -> None:
    """Raise IdealGroupsError if a field of ``record`` has another type than its annotation says."""
    hints = _hints(type(record))
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if not _is_a(value, hints[field.name]):
            raise IdealGroupsError(
                f"{field.name} of a {type(record).__name__} must be {field.type!s}, not {value!r:.80}."
            )


def from_mapping(cls: type[Record], data: Any, derived: Collection[str] = ()) -> Record:
    """Make a record from ``data``, as JSON gives it; None stands for a float that is not finite.

    Args:
        cls: the class of the record.
        data: {field: value}.
        derived: keys that are written for readers and follow from the others.

    Raises:
        IdealGroupsError: ``data`` is no mapping, a field is missing, a key is unknown, a value has another type.
    """
    if not isinstance(data, Mapping):
        raise IdealGroupsError(f"a {cls.__name__} is written as an object with named fields, not as {data!r:.60}.")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in data:
        if key not in fields and key not in derived:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(fields)}."
            raise IdealGroupsError(f"a {cls.__name__} has no field {key!r}; {hint}")
    hints = _hints(cls)
    values = {
        key: math.nan if value is None and hints[key] is float else value
        for key, value in data.items()
        if key in fields
    }
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise IdealGroupsError(f"a {cls.__name__} lacks its field {name!r}.")
    return cls(**values)


@cache
def _hints(cls: type) -> Mapping[str, Any]:
    return get_type_hints(cls)


def _is_a(value: Any, hint: Any) -> bool:
    if type(value) is hint:
        return True
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_is_a(item, get_args(hint)[0]) for item in value)
    allowed = get_args(hint) or (hint,)
    if isinstance(value, bool):
        return bool in allowed
    if isinstance(value, int) and float in allowed:
        return True
    return any(isinstance(value, NoneType if kind is None else kind) for kind in allowed)
