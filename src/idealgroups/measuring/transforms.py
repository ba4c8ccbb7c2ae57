"""See the ordinary tensor inside ``torch.vmap`` and other function transforms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

# The one place that uses this private API of torch; there is no public one.
from torch._C import _functorch  # type: ignore[attr-defined,unused-ignore]
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

Fold = Callable[[Tensor], Tensor]
"""Moves the axes that ``torch.vmap`` hides into the first visible one: (B, N, C, …) → (B·N, C, …)."""


def is_transformed(x: Tensor) -> bool:
    """Return whether ``x`` belongs to ``torch.vmap``, ``torch.func.grad`` or another function transform."""
    return bool(_functorch.is_functorch_wrapped_tensor(x))


def is_differentiated(x: Tensor) -> bool:
    """Return whether a transform that differentiates (``grad``, ``jvp``, ``jacrev``) is around ``x``."""
    while is_transformed(x):
        if not _functorch.is_batchedtensor(x):
            return True
        x = _functorch.get_unwrapped(x)
    return False


def ordinary(x: Tensor) -> tuple[Tensor, Fold]:
    """Return the tensor that ``x`` wraps, and how to fold it and its gradients to (N, C, …)."""
    hidden: list[int] = []
    while is_transformed(x):
        if _functorch.is_batchedtensor(x):
            hidden.append(_functorch.maybe_get_bdim(x))
        x = _functorch.get_unwrapped(x)

    def fold(t: Tensor) -> Tensor:
        for moved, axis in enumerate(reversed(hidden)):  # from the innermost wrapper to the outermost
            t = t.movedim(axis + moved, 0)
        return t.flatten(0, len(hidden)) if hidden else t

    return x, fold


@contextmanager
def outside_of_transforms() -> Iterator[None]:
    """Compute with ordinary tensors although a transform is active."""
    with temporarily_clear_interpreter_stack():
        yield
