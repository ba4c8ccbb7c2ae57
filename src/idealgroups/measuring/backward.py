"""Backward passes that leave nothing but the size of every weight's gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import IdealGroupsError, is_out_of_memory, one_line
from .function_calls import unseen
from .graph import leaves, nodes_behind
from .prepare import Weight

_BLOCK = 1024
_LARGE = 1 << 18
"""Values from which on summing up in blocks is faster than in double precision."""
_PIECE = 1 << 15
"""Values that are summed up in double precision at once, for it takes a copy of them in that precision."""
_TINY = 1e-15
"""Squares of values below this lose digits in single precision."""

Begin = Callable[[], None]
"""Called before each backward pass."""


def squares_at_once(losses: Sequence[Tensor], weights: Sequence[Weight], begin: Begin) -> dict[str, float]:
    """Return Σ ‖∂L/∂W‖² over ``losses`` of every weight that a gradient reaches; no other tensor gets a gradient.

    Each gradient is freed as soon as it is complete, so that no two are held at a time.
    """
    with unseen("looking for the weights"):
        wanted = [weight.parameter for weight in weights if weight.parameter.requires_grad]
    sizes: list[tuple[str, Tensor]] = []
    with _freed_when_complete(weights, sizes):
        for index, loss in enumerate(losses):
            begin()
            with _backward_errors():
                loss.backward(retain_graph=index + 1 < len(losses), inputs=wanted)  # type: ignore[no-untyped-call]
    squares: dict[str, float] = {}
    for (name, _), size in zip(sizes, numbers([size for _, size in sizes]), strict=True):
        squares[name] = squares.get(name, 0.0) + size * size
    return squares


def squares_at_the_end(
    losses: Sequence[Tensor], weights: Sequence[Weight], model: nn.Module, begin: Begin
) -> dict[str, float]:
    """Return the same where a reentrant checkpoint forbids ``inputs=`` and completes a gradient in several steps.

    Other tensors than the model's parameters keep the gradient that they had.
    """
    ours = {id(parameter) for parameter in model.parameters()}
    squares: dict[str, float] = {}
    for index, loss in enumerate(losses):
        begin()
        foreign = [(leaf, leaf.grad) for leaf in leaves(nodes_behind([loss.grad_fn])) if id(leaf) not in ours]
        for leaf, _ in foreign:
            leaf.grad = None
        try:
            with _backward_errors():
                loss.backward(retain_graph=index + 1 < len(losses))  # type: ignore[no-untyped-call]
            for weight in weights:
                if weight.parameter.grad is not None:
                    square = float(norm(weight.parameter.grad) ** 2)
                    squares[weight.name] = squares.get(weight.name, 0.0) + square
        finally:
            for parameter in model.parameters():
                parameter.grad = None
            for leaf, gradient in foreign:
                leaf.grad = gradient
    return squares


def norm(x: Tensor) -> Tensor:
    """Return the Frobenius norm as a double, of real, complex, dense and sparse tensors without history.

    Blocks of a large tensor are summed up in its own precision, which is five times as fast as in double precision,
    unless the squares of the values are out of its range.

    >>> float(norm(torch.tensor([3 + 0j, 4j]))), float(norm(torch.eye(4).to_sparse()))
    (5.0, 2.0)
    """
    if x.layout is not torch.strided:
        x = x.coalesce().values() if x.layout is torch.sparse_coo else x.values()
    if x.is_complex():
        x = torch.view_as_real(x.resolve_conj())
    if x.is_contiguous() and x.numel() >= _LARGE:
        blocks, rest = x.flatten().tensor_split([x.numel() // _BLOCK * _BLOCK])
        sizes = torch.cat(
            [torch.linalg.vector_norm(blocks.view(-1, _BLOCK), dim=1), torch.linalg.vector_norm(rest)[None]]
        )
        size = _exact(sizes)
        if torch.isfinite(size) and size > _TINY * x.numel() ** 0.5:
            return size
    if x.is_contiguous() and x.numel() > _PIECE:
        sizes = torch.stack([_exact(piece) for piece in torch.split(x.flatten(), _PIECE)])
        return _exact(sizes)
    return _exact(x)


def _exact(x: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(x, dtype=torch.float64)
    return size


def numbers(scalars: Sequence[Tensor]) -> list[float]:
    """Return the values of tensors of one element, all at once: one by one, each is a wait for its device."""
    if len({scalar.device for scalar in scalars}) != 1:
        return [float(scalar) for scalar in scalars]
    values: list[float] = torch.stack(list(scalars)).tolist()
    return values


@contextmanager
def _freed_when_complete(weights: Sequence[Weight], sizes: list[tuple[str, Tensor]]) -> Iterator[None]:
    def hook_of(name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            if parameter.grad is not None:
                sizes.append((name, norm(parameter.grad)))
                parameter.grad = None

        return hook

    handles = []
    with unseen("following the gradients"):
        for weight in weights:
            weight.parameter.grad = None
            if weight.parameter.requires_grad:
                parameter: Any = weight.parameter
                handles.append(parameter.register_post_accumulate_grad_hook(hook_of(weight.name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _backward_errors() -> Iterator[None]:
    try:
        yield
    except IdealGroupsError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise IdealGroupsError(f"the backward pass raised {one_line(error)}.", cause=error) from None
