"""Say why a network has no layer to plan."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from .errors import NoNormalizationError
from .measuring.function_calls import advice
from .norms import Inventory


def no_normalization(model: nn.Module, found: Inventory, functional: Mapping[str, str]) -> NoNormalizationError:
    """Return the error for a model none of whose modules is a normalization layer over channels.

    Args:
        model: named in the message by its class.
        found: what its modules are.
        functional: {module: function by which it normalizes}.
    """
    missed = {name: f"{name}: {why}" for name, why in found.odd.items()}
    missed |= {name: f"{name} {advice(function)}" for name, function in functional.items() if name not in missed}
    why = "group, batch, instance and channel-wise layer norms are understood"
    if missed:
        first, *others = missed.values()
        why = f"not understood: {first}{f' ({len(others)} more)' if others else ''}"
    return NoNormalizationError(
        f"{type(model).__name__} has no normalization layer over channels, so there is no number of groups to plan; "
        f"{why}."
    )
