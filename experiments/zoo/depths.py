"""How many group norms lie between a weight and the loss, read from the autograd graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from idealgroups.sandbox.calling import call_model

GROUP_NORM = "NativeGroupNormBackward"


class Depths(NamedTuple):
    """Group norms between a weight and the loss, on the shortest and the longest path and averaged over consumers."""

    shortest: float = math.nan
    longest: float = math.nan
    mean: float = math.nan


def depths(model: nn.Module, inputs: Any, loss: Callable[[Any], Tensor]) -> dict[str, Depths]:
    """{name of a parameter: its :class:`Depths`}, for the parameters the loss depends on."""
    root = loss(call_model(model, inputs)).grad_fn
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[Any, list[Depths]] = {root: [Depths(0.0, 0.0, 0.0)]}
    result = {}
    for node in _consumers_first(root):
        seen = found.pop(node)
        here = Depths(
            min(d.shortest for d in seen), max(d.longest for d in seen), sum(d.mean for d in seen) / len(seen)
        )
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) in names:
            result[names[id(variable)]] = here
        step = float(node.name().startswith(GROUP_NORM))
        passed = Depths(*(value + step for value in here))
        for producer, _ in node.next_functions:
            if producer is not None:
                found.setdefault(producer, []).append(passed)
    return result


def _consumers_first(root: Any) -> list[Any]:
    """All nodes of the graph, each after every node that consumes its result."""
    order, seen, stack = [], {root}, [(root, iter(root.next_functions))]
    while stack:
        node, rest = stack[-1]
        for producer, _ in rest:
            if producer is not None and producer not in seen:
                seen.add(producer)
                stack.append((producer, iter(producer.next_functions)))
                break
        else:
            order.append(node)
            stack.pop()
    return order[::-1]
