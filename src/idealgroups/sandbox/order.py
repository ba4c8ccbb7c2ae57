"""Tells whether a change of a network would end its causality: that what it returns at a position sees no later one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InternalError
from .calling import copy_inputs, other_numbers
from .tree import tensor_leaves, tensors, tree_map

Run = Callable[[Any], Any]
"""Inputs → what a model returns for them; the same each time, and for each sample by itself."""

TOLERANCE = 1e-5
"""Of the largest output: what rounding may move."""

SHORTEST = 4
"""Positions of an axis that can be told from chance. Ours."""


def lengths(value: Any) -> frozenset[int]:
    """The lengths of the axes behind the first of all tensors in ``value``, from ``SHORTEST`` on.

    >>> sorted(lengths({"a": torch.zeros(2, 3, 8), "b": [torch.zeros(9, 5)]}))
    [5, 8]
    """
    return frozenset(
        size for tensor in tensors(value) if _is_plain(tensor) for size in tensor.shape[1:] if size >= SHORTEST
    )


def loses_order(before: Run, after: Run, inputs: Any) -> int | None:
    """An axis of ``inputs`` along which no output of ``before`` sees a later position, but one of ``after`` does.

    In a causal network a change of the positions from the middle on moves no output in front of them, and a change of
    the others moves outputs behind. Both are asked at two neighbouring places, for strides have places at which they
    look causal. An axis of an output may belong to one of the inputs if it is as long.

    Args:
        before: the network as it is. It runs on one sample more than there are axes; a causal one on four more.
        after: the network with the change. It runs if ``before`` is causal.
        inputs: what both take, with samples along the first axis. No run gets more samples than these.

    Returns:
        The axis, counted from 0; None if there is none, or where a run raises.

    >>> loses_order(lambda x: x.cumsum(1), lambda x: x + x.mean(1, keepdim=True), torch.randn(2, 8))
    1
    >>> loses_order(lambda x: x.sum(1, keepdim=True) + x, lambda x: x, torch.randn(2, 8)) is None
    True
    """
    first = next((tensor for tensor in tensor_leaves(inputs) if _is_plain(tensor) and tensor.ndim > 1), None)
    if first is None or not len(first):
        return None
    one = tree_map(lambda leaf: leaf[:1] if _has_samples(leaf, len(first)) else leaf, copy_inputs(inputs))
    axes = {axis: first.shape[axis] // 2 for axis in range(1, first.ndim) if first.shape[axis] >= SHORTEST}
    try:
        later = _Rows.of(before, one, [_Change(axis, middle, True) for axis, middle in axes.items()], len(first))
        for row, (axis, middle) in enumerate(axes.items(), 1):
            places = [place for place in later.places(first.shape[axis]) if later.moved(place, row, middle) == _BEHIND]
            if places and _keeps_order(before, one, axis, middle, places, len(first)):
                changed = _Rows.of(after, one, [_Change(axis, middle, True)], len(first))
                if any(changed.moved(place, 1, middle)[0] for place in places):
                    return axis
    except _RaisedError:
        return None
    return None


_Moved = tuple[bool, bool]
"""Whether what is returned in front of a place has moved, and whether what is returned behind it has."""

_BEHIND = (False, True)


class _RaisedError(Exception):
    """The model raises on a changed input, or returns something else for it."""


@dataclass(frozen=True)
class _Change:
    """Other numbers of the same kind at the positions from ``cut`` on along ``axis``, or at those in front of it."""

    axis: int
    cut: int
    later: bool

    def of(self, leaf: Tensor, length: int) -> Tensor:
        if leaf.ndim <= self.axis or leaf.shape[self.axis] != length:
            return leaf
        leaf = leaf.detach().clone()
        start, count = (self.cut, length - self.cut) if self.later else (0, self.cut)
        part = leaf.narrow(self.axis, start, count)
        part.copy_(other_numbers(part, self.axis))
        return leaf


@dataclass(frozen=True)
class _Place:
    """One of the returned tensors, and an axis of it."""

    index: int
    axis: int


@dataclass(frozen=True)
class _Rows:
    """What is returned for a sample as it is, and behind it for the same sample with each of several changes."""

    returned: list[Tensor]

    @classmethod
    def of(cls, run: Run, one: Any, changes: Sequence[_Change], at_once: int) -> _Rows:
        every = [None, *changes]
        parts = [_returned(run, one, every[start : start + at_once]) for start in range(0, len(every), at_once)]
        try:
            return cls([torch.cat(tensors) for tensors in zip(*parts, strict=True)])
        except (ValueError, RuntimeError) as error:  # other tensors, or other shapes, for a changed input
            raise _RaisedError from error

    def places(self, length: int) -> Iterator[_Place]:
        for index, tensor in enumerate(self.returned):
            for axis in range(1, tensor.ndim):
                if tensor.shape[axis] == length:
                    yield _Place(index, axis)

    def moved(self, place: _Place, row: int, cut: int) -> _Moved:
        if place.index >= len(self.returned) or place.axis >= self.returned[place.index].ndim:
            raise _RaisedError
        both = self.returned[place.index].movedim(place.axis, 1)
        apart, least = (both[row] - both[0]).abs(), TOLERANCE * float(both[0].abs().max())
        return bool((apart[:cut] > least).any()), bool((apart[cut:] > least).any())


def _returned(run: Run, one: Any, changes: Sequence[_Change | None]) -> list[Tensor]:
    first = next(tensor for tensor in tensor_leaves(one) if _is_plain(tensor) and tensor.ndim > 1)

    def rows(leaf: Any) -> Any:
        if not _has_samples(leaf, 1):
            return leaf
        return torch.cat([change.of(leaf, first.shape[change.axis]) if change else leaf for change in changes])

    inputs = tree_map(rows, copy_inputs(one))
    try:
        found = [tensor.detach() for tensor in tensors(run(inputs)) if _is_plain(tensor)]
    except InternalError:
        raise
    except Exception as error:  # whatever a model raises
        raise _RaisedError from error
    return [t for t in found if t.ndim > 1 and len(t) == len(changes) and t.is_floating_point()]


def _keeps_order(run: Run, one: Any, axis: int, middle: int, places: Sequence[_Place], at_once: int) -> bool:
    changes = [_Change(axis, middle, False), _Change(axis, middle - 1, True), _Change(axis, middle - 1, False)]
    rows = _Rows.of(run, one, changes, at_once)
    return any(
        rows.moved(place, 1, middle)[1]
        and rows.moved(place, 2, middle - 1) == _BEHIND
        and rows.moved(place, 3, middle - 1)[1]
        for place in places
    )


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor whose axes are what they seem: not nested, not sparse, not of a class of its own."""
    return type(value) in (Tensor, nn.Parameter) and value.layout == torch.strided


def _has_samples(leaf: Any, samples: int) -> bool:
    return _is_plain(leaf) and leaf.ndim > 0 and len(leaf) == samples
