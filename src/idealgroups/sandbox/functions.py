"""Give the functions in a copied model closures of their own, which ``copy.deepcopy`` does not copy."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

_MUTABLE = frozenset({dict, list, set, OrderedDict, defaultdict, deque})
_SEQUENCES: tuple[Any, ...] = (tuple, list, set, deque)
PLAIN = frozenset({type(None), bool, int, float, str})
_DEPTH = 4
_TENSORS_AND_MODULES = frozenset({"_parameters", "_buffers", "_modules"})


def rebind_functions(modules: Iterable[nn.Module], memo: dict[int, Any]) -> None:
    """Replace every function in the hooks and attributes of ``modules`` that refers to what was copied.

    Args:
        modules: those of a deep copy.
        memo: what ``copy.deepcopy`` made of each object, by the object's id; what closures share is added.
    """
    rebind = _Rebind(memo)
    for module in modules:
        for key, value in list(vars(module).items()):
            if key not in _TENSORS_AND_MODULES and not _is_empty(value):
                vars(module)[key] = rebind.inside(value, _DEPTH)


def is_plain(value: Any) -> bool:
    """Return whether ``value`` is a number, a word, nothing, or a tuple of them."""
    kind = type(value)
    return kind in PLAIN or (kind is tuple and all(type(item) in PLAIN for item in value))


def _is_empty(value: Any) -> bool:
    """Return whether there is no function in ``value``, as in most attributes of a module."""
    return not value if type(value) in _MUTABLE else is_plain(value)


def containers_of(module: nn.Module) -> list[Any]:
    """Return the lists, dicts, sets and deques that the attributes and hooks of ``module`` hold or refer to."""
    found: list[Any] = []
    seen: set[int] = set()
    for key, value in vars(module).items():
        if key not in _TENSORS_AND_MODULES and not is_plain(value):
            if type(value) in _MUTABLE and not value:
                found.append(value)
            else:
                found += _containers(value, _DEPTH, seen)
    return found


def _containers(value: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    if depth == 0 or id(value) in seen:
        return
    seen.add(id(value))
    if type(value) in _MUTABLE:
        yield value
    for item in _parts(value):
        yield from _containers(item, depth - 1, seen)


def _parts(value: Any) -> list[Any]:
    """What a container holds, or a function refers to. Of a subclass too, which may count or draw its items itself."""
    if isinstance(value, dict):
        return list(dict.values(value))
    for kind in _SEQUENCES:
        if isinstance(value, kind):
            return [*kind.__iter__(value)]
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, FunctionType):
        return [*_cell_contents(value).values(), *(value.__defaults__ or ()), *vars(value).values()]
    return []


def _cell_contents(function: FunctionType) -> dict[int, Any]:
    """What the cells of its closure hold, without the empty ones."""
    cells = enumerate(function.__closure__ or ())
    return {number: cell.cell_contents for number, cell in cells if cell != CellType()}  # which is an empty one


class _Rebind:
    """Finds for each value what stands for it in the copy."""

    def __init__(self, memo: dict[int, Any]) -> None:
        self._memo = memo
        self._functions: dict[int, tuple[FunctionType, FunctionType]] = {}

    def inside(self, value: Any, depth: int) -> Any:
        """A value of the copy, with the functions in it replaced; containers stay the same, immutable ones too."""
        if depth == 0:
            return value
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, partial):
            function = self.inside(value.func, depth - 1)
            return value if function is value.func else partial(function, *value.args, **value.keywords)
        if isinstance(value, dict):
            for key, item in list(dict.items(value)):
                if (new := self.inside(item, depth - 1)) is not item:
                    dict.__setitem__(value, key, new)
        elif isinstance(value, list):
            for index, item in enumerate([*list.__iter__(value)]):
                if (new := self.inside(item, depth - 1)) is not item:
                    list.__setitem__(value, index, new)
        elif type(value) is tuple:
            items = tuple(self.inside(item, depth - 1) for item in value)
            return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
        return value

    def _function(self, function: FunctionType) -> FunctionType:
        """A function whose closure, defaults and attributes are those of the copy; the same where that is no change."""
        if id(function) in self._functions:
            return self._functions[id(function)][1]
        cells = tuple(CellType() for _ in function.__closure__ or ())
        new = FunctionType(function.__code__, function.__globals__, function.__name__, None, cells or None)
        self._functions[id(function)] = (function, new)  # before its contents, which may refer to it
        contents = _cell_contents(function)
        copied = {number: self._twin_of(content) for number, content in contents.items()}
        defaults = function.__defaults__ and tuple(map(self._twin_of, function.__defaults__))
        keywords = function.__kwdefaults__ and {k: self._twin_of(v) for k, v in function.__kwdefaults__.items()}
        notes = {key: self._twin_of(value) for key, value in vars(function).items()}
        before = (*contents.values(), *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        after = (*copied.values(), *(defaults or ()), *(keywords or {}).values())
        if all(a is b for a, b in zip((*before, *vars(function).values()), (*after, *notes.values()), strict=True)):
            self._functions[id(function)] = (function, function)
            return function
        for number, content in copied.items():
            cells[number].cell_contents = content
        new.__defaults__, new.__kwdefaults__ = defaults, keywords
        new.__qualname__, new.__module__, new.__doc__ = function.__qualname__, function.__module__, function.__doc__
        vars(new).update(notes)
        return new

    def _twin_of(self, value: Any) -> Any:
        """What a function of the copy refers to where the original's refers to ``value``."""
        if id(value) in self._memo:
            return self._memo[id(value)]
        if isinstance(value, FunctionType):
            return self._function(value)
        is_own_method = isinstance(value, MethodType) and id(value.__self__) in self._memo
        if not (is_own_method or isinstance(value, Tensor | nn.Module | partial) or type(value) in (*_MUTABLE, tuple)):
            return value  # an object of somebody else's (a trainer, a data set) is shared
        try:
            return self.inside(copy.deepcopy(value, self._memo), _DEPTH)
        except Exception:  # what cannot be copied is shared as well
            return value
