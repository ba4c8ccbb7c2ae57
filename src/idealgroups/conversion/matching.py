"""Match a plan with a model without changing it: which layers change, which stay, and why."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from ..errors import IdealGroupsError
from ..fingerprint import fingerprint
from ..norms import Inventory, Norm, inventory
from ..records import Planned, Site
from ..selection import Patterns, nearest
from ..text import plural
from .trained import outside

TOKEN_LAYER_NORM = "layer norm over the last dimension, not over channels"


@dataclass(frozen=True)
class Work:
    """``groups``: {layer: number of groups} for the layers to change. ``left``: {layer: why} for all others.

    ``norms``: what the layers of the model are, by their first names.
    """

    groups: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    norms: Mapping[str, Norm] = field(default_factory=dict)


def check_plan(plan: Planned) -> None:
    """Refuse what is no plan.

    Raises:
        IdealGroupsError: it is none.
    """
    if not isinstance(plan, Planned):
        raise IdealGroupsError(f"a Plan is needed, not a {type(plan).__name__}; make one with idealgroups.plan.")


def match(model: nn.Module, plan: Planned, patterns: Patterns) -> Work:
    """Match every layer of the plan with one of the model.

    Raises:
        IdealGroupsError: the first difference between the two, or a pattern that matches nothing.

    Warns:
        UserWarning: the model has layers that the plan says nothing about, or that did not run when it was made; its
            weights have other names or shapes than those of the network that the plan was made for.
    """
    check_plan(plan)
    modules = dict(model.named_modules(remove_duplicate=False))
    found = inventory(model, patterns.why_not)
    first = {id(module): name for name, module in model.named_modules()}
    patterns.check({*found.names, *plan.num_groups})
    work = Work(norms=found.norms)
    planned: dict[int, Site] = {}
    for site in plan.sites:
        why = patterns.why_not(site.name)
        if why is not None:
            work.left[site.name] = why
            continue
        module = _layer(site, modules, found, first)
        twin = planned.setdefault(id(module), site)
        if twin.num_groups != site.num_groups:
            raise IdealGroupsError(
                f"{twin.name} and {site.name} are one shared layer in this model, but the plan gives them "
                f"{twin.num_groups} and {site.num_groups} groups; make a plan for this model."
            )
        if isinstance(module, nn.GroupNorm) and module.num_groups == site.num_groups:
            work.left[site.name] = "has its planned number of groups already"
        elif twin is site:
            work.groups[site.name] = site.num_groups
    normalizing = {name: _why_unchanged(name, found) for name in modules if name in found.names}
    others = {n: why for n, why in normalizing.items() if n not in work.left and id(modules[n]) not in planned}
    _leave(others, plan, patterns, work)
    if plan.fingerprint and plan.fingerprint != fingerprint(model):
        warnings.warn(
            "the plan fits the normalization layers of this model, but was made for other weights (another number of "
            "outputs, say), which can change the best numbers of groups; make a plan for this model.",
            UserWarning,
            stacklevel=outside(),
        )
    return work


def _leave(others: dict[str, str], plan: Planned, patterns: Patterns, work: Work) -> None:
    """Note why each of ``others``, layers that no site of the plan stands for, stays as it is."""
    missed = {item.name: item.why for item in plan.not_understood}
    unknown, idle = [], []
    for name, why in others.items():
        reason = patterns.why_not(name) or missed.get(name) or why
        work.left[name] = reason or "is not in the plan"
        if not reason:
            unknown.append(name)
        elif not why and reason == missed.get(name):
            idle.append(name)
    if idle:
        warnings.warn(
            f"the normalization layer {idle[0]} stays as it is because it {missed[idle[0]]}{_more(idle)}; "
            "exclude it by name if that is meant.",
            UserWarning,
            stacklevel=outside(),
        )
    if unknown:
        warnings.warn(
            f"the plan does not know the normalization layer {unknown[0]} of the model{_more(unknown)}, so it stays "
            "as it is: was the plan made for another network?",
            UserWarning,
            stacklevel=outside(),
        )


def _more(names: list[str]) -> str:
    """Return a clause on all but the first of ``names``."""
    return f" ({plural(len(names) - 1, 'other')} as well)" if len(names) > 1 else ""


def _why_unchanged(name: str, found: Inventory) -> str:
    """Why the layer ``name`` cannot be replaced; "" where it can."""
    if name in found.tokens:
        return TOKEN_LAYER_NORM
    return found.odd.get(name) or found.skipped.get(name) or ""


def _layer(site: Site, modules: dict[str, nn.Module], found: Inventory, first: dict[int, str]) -> nn.Module:
    """The module a site stands for; ``first`` names the modules as ``found`` does."""
    another = "this plan is for another network:"
    name = site.name or "the model itself"
    if site.name not in modules:
        raise IdealGroupsError(f"{another} the model has no {name}; {nearest(site.name, sorted(found.names))}.")
    module = modules[site.name]
    norm = found.norms.get(first[id(module)])
    if norm is None:
        why = _why_unchanged(first[id(module)], found)
        here = f"a {type(module).__name__}" + (f" ({why})" if why else "")
        raise IdealGroupsError(f"{another} {name} is a {site.kind} there and {here} here; make a plan for this model.")
    if norm.num_channels != site.num_channels:
        raise IdealGroupsError(
            f"{another} {name} has {site.num_channels} channels there and {norm.num_channels} here; "
            "make a plan for this model."
        )
    if "forward" in vars(module):
        raise IdealGroupsError(
            f"the forward of {name} was exchanged on the layer itself (by a tool that hooks into it); "
            f"undo that first, or leave the layer out with exclude={site.name!r}."
        )
    return module
