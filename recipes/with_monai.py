"""MONAI: one number of groups for all layers in MONAI's own ``norm`` argument, or one for each layer by conversion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

import idealgroups as ig

Norm = tuple[str, dict[str, Any]]


def norm_argument(build: Callable[[Any], nn.Module], volume: Tensor) -> Norm:
    """The ``norm`` with which ``build(norm)`` makes a network with the best single number of groups."""
    plan = ig.plan(build("batch"), volume, strategy="uniform")
    return "group", {"num_groups": min(plan.num_groups.values())}
