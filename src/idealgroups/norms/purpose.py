"""Points out batch norms that stand for something else than normalization between layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from ..sandbox.walking import named_modules
from .norm import Norm

STANDARDIZES = "stands before the first weight: it standardizes the input features, and a group norm would mix them"
ENDS_PROJECTOR = "has no scale and shift and ends a projector, where statistics of the batch are often what is wanted"


def remarks(model: nn.Module, norms: Mapping[str, Norm], owners: Collection[str]) -> dict[str, str]:
    """Return what to think about before the batch norms of ``model`` are replaced, by name.

    Args:
        model: the model.
        norms: its normalization layers.
        owners: names of the modules that hold its weight layers.

    >>> from idealgroups.norms import inventory
    >>> net = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    >>> list(remarks(net, inventory(net).norms, ["1", "4"]))
    ['0']
    """
    order = [name for name in named_modules(model) if name in norms or name in owners]
    if not any(name in owners for name in order):
        return {}
    found = {}
    for place, name in enumerate(order):
        norm = norms.get(name)
        if norm is None or not norm.over_batch:
            continue
        inside = name.rpartition(".")[0]
        later = [other for other in order[place + 1 :] if other.startswith(f"{inside}." if inside else "")]
        if place == 0:
            found[name] = STANDARDIZES
        elif not norm.affine and not later:
            found[name] = ENDS_PROJECTOR
    return found


def split_pairs(model: nn.Module, norms: Mapping[str, Norm]) -> dict[str, str]:
    """Return why batch norms that share their work, one for training and one for evaluation, must stay, by name.

    They are two batch norms without scale and shift in one module, one with a multiple of the other's channels, as in
    the networks for video of SlowFast.
    """
    found: dict[str, str] = {}
    candidates = {name for name, norm in norms.items() if norm.over_batch and not norm.affine}
    if len(candidates) < 2:
        return found
    for name, module in named_modules(model).items():
        if isinstance(module, nn.Sequential | nn.ModuleList):
            continue
        children = [f"{name}.{child}" if name else child for child, _ in module.named_children()]
        pair = [child for child in children if child in candidates]
        sizes = sorted(norms[child].num_channels for child in pair)
        if len(pair) == 2 and sizes[0] < sizes[1] and sizes[1] % sizes[0] == 0:
            why = "is one of two batch norms that share their statistics, one for training and one for evaluation"
            found |= dict.fromkeys(pair, why)
    return found
