"""Nested containers of inputs and outputs: tuples, lists, mappings of any class, and objects that hold tensors."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn


def tree_map(function: Callable[[Any], Any], value: Any) -> Any:
    """The same containers with ``function`` of every leaf; a mapping or tuple keeps its class where it can.

    >>> tree_map(len, {"a": ["x", ("yy", "zzz")]})
    {'a': [1, (2, 3)]}
    """
    if isinstance(value, Mapping):
        items = {key: tree_map(function, item) for key, item in value.items()}
        try:
            return _with_items(value, items)
        except Exception:  # a mapping that cannot be written to
            return items
    if isinstance(value, list | tuple):
        parts = [tree_map(function, item) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return function(value)


def tensor_leaves(value: Any) -> list[Tensor]:
    """The tensors that :func:`tree_map` can exchange: those of containers, but not those inside other objects.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> [t.item() for t in tensor_leaves({"a": torch.tensor(1), "b": (SimpleNamespace(c=torch.tensor(2)), None)})]
    [1]
    """
    found: list[Tensor] = []
    tree_map(lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None, value)
    return found


def is_at_rest(value: Any) -> bool:
    """Return whether ``value`` is the same each time it is looked at: tensors, numbers and words in plain containers.

    >>> from types import MappingProxyType
    >>> is_at_rest(({"a": [1, "b"]}, None)), is_at_rest(MappingProxyType({}))
    (True, False)
    """
    if type(value) in (list, tuple):
        return all(map(is_at_rest, value))
    if type(value) is dict:
        return all(map(is_at_rest, value.values()))
    return type(value) in (Tensor, nn.Parameter, int, float, complex, bool, str, type(None))


def _with_items(value: Any, items: dict[Any, Any]) -> Any:
    """Return a copy of the mapping ``value``, with all that its class keeps besides, that has the ``items``."""
    before = dict(value.items())
    twin: Any = copy.copy(value)
    for key, item in items.items():
        twin[key] = item
        if item is not before[key] and value[key] is item:  # the copy writes to what its class shares with the original
            value[key] = before[key]
            return copy.deepcopy(value, {id(before[key]): items[key] for key in items})
    return twin


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor inside tuples, lists, dicts, dataclasses and the attributes of other objects, in order.

    >>> import torch
    >>> [t.item() for t in tensors({"a": torch.tensor(1), "b": (torch.tensor(2), None)})]
    [1, 2]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors(getattr(value, field.name))
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        for item in vars(value).values():
            if isinstance(item, Tensor | Mapping | list | tuple):  # not objects: they may refer to one another
                yield from tensors(item)
