"""Say what normalizes in a network and is not planned, and why."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from .errors import NoNormalizationError
from .measuring.function_calls import advice
from .norms import Inventory
from .records import NotUnderstood


def by_function(functional: Mapping[str, str], found: Inventory) -> list[NotUnderstood]:
    """Return the modules that normalize by calling a function, without those that are layers of their own.

    Args:
        functional: {module: function by which it normalizes}.
        found: what the model's modules are.
    """
    return [
        NotUnderstood(name=name, why=advice(function)) for name, function in functional.items() if name not in found.odd
    ]


def no_normalization(model: nn.Module, functional: Mapping[str, str], found: Inventory) -> NoNormalizationError:
    """Return the error for a model none of whose modules is a normalization layer over channels.

    ``model`` is named in the message by its class; the others are those of :func:`by_function`.
    """
    missed = [f"{name}: {why}" for name, why in found.odd.items()]
    missed += [f"{one.name} {one.why}" for one in by_function(functional, found)]
    why = "group, batch, instance and channel-wise layer norms are understood"
    if missed:
        first, *others = missed
        why = f"not understood: {first}{f' ({len(others)} more)' if others else ''}"
    return NoNormalizationError(
        f"{type(model).__name__} has no normalization layer over channels, so there is no number of groups to plan; "
        f"{why}."
    )
