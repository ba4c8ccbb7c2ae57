"""Read the autograd graph: which weights does a normalization lie behind, on the way to the loss?"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd.graph import Node


def nodes_behind(start: Iterable[Node | None]) -> set[Node]:
    """Return the nodes of the graph that ``start`` was computed from, themselves included."""
    seen: set[Node] = set()
    nodes = list(start)
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes.extend(function for function, _ in node.next_functions)
    return seen


def origin(x: Tensor) -> Tensor:
    """Return the tensor that ``x`` is a view of, or ``x`` itself.

    An operation in place, such as a ReLU, gives a view another node; that of the tensor behind the view stays in the
    graph. Instance norm returns a view, and so does every operation on a subclass of ``Tensor``.
    """
    with torch._C.DisableTorchFunctionSubclass():
        base = x._base if x._is_view() else None
        return x if base is None or base.grad_fn is None else base


def leaves(nodes: Iterable[Node]) -> list[Tensor]:
    """Return the tensors in which gradients end."""
    found = (getattr(node, "variable", None) for node in nodes)
    return [leaf for leaf in found if isinstance(leaf, Tensor)]


def has_reentrant_checkpoint(nodes: Iterable[Node]) -> bool:
    """Return whether a part of the graph is not there yet: it is built when the backward pass reaches it."""
    return any("CheckpointFunction" in node.name() for node in nodes)


def movable(start: Iterable[Node | None], outputs: Iterable[Node]) -> frozenset[int]:
    """Return the ids of the leaves whose way to the loss leads through one of ``outputs``.

    Args:
        start: the nodes of the losses.
        outputs: the nodes of the outputs of normalization layers; those that the loss does not depend on do not count.
    """
    norms = set(outputs)
    seen: set[Node] = set()
    nodes = list(start)
    last: set[Node] = set()  # the outputs that the loss depends on without another one between
    while nodes:
        node = nodes.pop()
        if node in norms:
            last.add(node)
        elif node is not None and node not in seen:
            seen.add(node)
            nodes.extend(function for function, _ in node.next_functions)
    return frozenset(map(id, _leaves_behind(last)))


def _leaves_behind(seen: set[Node]) -> list[Tensor]:
    """Return ``leaves(nodes_behind(seen))``, in a third of the time; adds to ``seen``."""
    nodes, found = list(seen), []
    while nodes:
        node = nodes.pop()
        following = node.next_functions
        for function, _ in following:
            if function is not None and function not in seen:
                seen.add(function)
                nodes.append(function)
        if not following:
            found.append(node)
    return leaves(found)
