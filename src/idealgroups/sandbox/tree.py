"""Nested containers of inputs: tuples, lists and mappings of any class."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def tree_map(function: Callable[[Any], Any], value: Any) -> Any:
    """The same containers with ``function`` of every leaf; a mapping or tuple keeps its class where it can.

    >>> tree_map(len, {"a": ["x", ("yy", "zzz")]})
    {'a': [1, (2, 3)]}
    """
    if isinstance(value, Mapping):
        items = {key: tree_map(function, item) for key, item in value.items()}
        try:
            twin: Any = copy.copy(value)  # also what its class keeps besides its items
            for key, item in items.items():
                twin[key] = item
        except Exception:  # a mapping that cannot be written to
            return items
        return twin
    if isinstance(value, list | tuple):
        parts = [tree_map(function, item) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return function(value)


def tree_leaves(value: Any) -> Iterator[Any]:
    """Every leaf of nested containers, in order.

    >>> list(tree_leaves({"a": [1, (2, 3)]}))
    [1, 2, 3]
    """
    if isinstance(value, Mapping):
        for item in value.values():
            yield from tree_leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tree_leaves(item)
    else:
        yield value
