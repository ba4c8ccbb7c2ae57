"""The choice of ``strategy="faithful"``: the most groups that still do what the reference layer does. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping

BUDGET = 0.001
"""How far a layer's residual may exceed that of one group; the same for all layers (experiments/pretrained)."""


def most_faithful_groups(residuals: Mapping[int, float], budget: float) -> int:
    """The most groups whose residual exceeds that of the fewest groups by no more than ``budget``.

    The budget is absolute and per layer. A relative one runs away: once early layers are off, every choice looks alike.

    Args:
        residuals: {number of groups: residual}.
        budget: what may be lost, as a share of the layer's variance.

    >>> most_faithful_groups({1: 0.010, 2: 0.012, 4: 0.013, 8: 0.2}, budget=0.004)
    4
    """
    allowed = residuals[min(residuals)] + budget
    return max(groups for groups, residual in residuals.items() if residual <= allowed)
