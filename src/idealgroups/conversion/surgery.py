"""Carry out a plan: its layers become group norms, and what was replaced and left is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from torch import nn

from ..errors import IdealGroupsError
from ..records import Planned
from ..sandbox.copying import Model, copy_model
from ..sandbox.supported import refuse_unsupported
from ..selection import Patterns
from .change import all_or_nothing, set_norms
from .matching import match
from .trained import warn_of_lost_training
from .travel import Settings


@dataclass(frozen=True)
class Surgery(Generic[Model]):
    """What was done. ``print(surgery)`` is a summary.

    ``model``: the converted model. ``replaced``: {layer: (class before, number of groups now)}. ``left``: {layer: why},
    every layer that normalizes and is as it was.
    """

    model: Model
    replaced: Mapping[str, tuple[str, int]]
    left: Mapping[str, str]

    def __str__(self) -> str:
        kinds = Counter(kind for kind, _ in self.replaced.values())
        reasons = Counter(self.left.values())
        lines = [f"replaced {len(self.replaced)}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())]
        lines += [f"left {n}: {why}" for why, n in reasons.most_common()]
        return "\n".join(line.removesuffix(": ") for line in lines)


def replace_norms(
    model: Model,
    plan: Planned,
    *,
    inplace: bool = False,
    include: str | Collection[str] | None = None,
    exclude: str | Collection[str] | None = None,
    calibrated: bool = False,
    checks: Sequence[Callable[[Model], None]] = (),
) -> Surgery[Model]:
    """Carry out ``plan``: batch norm and its kin become ``torch.nn.GroupNorm``, group norms get a new number of groups.

    Kept: γ and β (the same parameters), eps, dtype, device, ``requires_grad``, training flags, hooks, a layer's own
    activation, and the names of all of these in ``state_dict``. Running statistics go; the buffers γ and β of a frozen
    batch norm become parameters that need no gradient. Forward hooks stay and see the group norm's output.

    Args:
        plan: made by :func:`idealgroups.plan`, or loaded from a file.
        model: the network the plan was made for; a copy of it is converted.
        inplace: convert ``model`` itself, and return it.
        include: convert only layers whose name matches one of these patterns (as in :mod:`fnmatch`: ``"layer4.*"``).
        exclude: leave layers whose name matches one of these patterns.
        calibrated: the layers are calibrated next, so there is no lost training to warn of.
        checks: each is called with a converted copy of its own that it may use up, one copy at a time, or with the
            converted ``model`` itself if ``inplace``; if one raises, every change is undone.

    Returns:
        The converted model, what was replaced, and what was left and why.

    Raises:
        IdealGroupsError: the model is wrapped, compiled, scripted or lazy; the plan is for another network (the first
            difference is named); a pattern matches nothing. Nothing has been changed then.

    Warns:
        UserWarning: trained layers change their function; the model has layers that the plan does not know, or that
            did not run when it was made.

    >>> import torch, idealgroups as ig
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.Flatten(), nn.Linear(1152, 8), nn.LayerNorm(8))
    >>> plan = ig.plan(net, torch.randn(2, 3, 8, 8), strategy="group-size-16")
    >>> print(replace_norms(net, plan))
    replaced 1: 1 BatchNorm2d
    left 1: layer norm over the last dimension, not over channels
    """
    if isinstance(plan, nn.Module) and not isinstance(model, nn.Module):
        raise IdealGroupsError("the arguments are swapped: the model comes first, as in ig.apply(model, plan).")
    refuse_unsupported(model)
    patterns = Patterns(include, exclude)
    work = match(model, plan, patterns)
    modules = dict(model.named_modules(remove_duplicate=False))
    if not calibrated:
        first = {id(module): name for name, module in model.named_modules()}
        warn_of_lost_training(model, {name: work.norms[first[id(modules[name])]] for name in work.groups})
    replaced = {name: (type(modules[name]).__name__, number) for name, number in work.groups.items()}
    settings = {s.name: Settings(s.num_groups, s.eps) for s in plan.sites if patterns.why_not(s.name) is None}

    if inplace:
        with all_or_nothing() as undo:
            set_norms(model, settings, work.norms, undo, "the plan")
            for check in checks:
                check(model)
        return Surgery(model, replaced, work.left)

    def converted_copy() -> Model:
        copy = copy_model(model)
        set_norms(copy, settings, work.norms, [], "the plan")  # what fails is thrown away
        return copy

    for check in checks:
        check(converted_copy())
    return Surgery(converted_copy(), replaced, work.left)
