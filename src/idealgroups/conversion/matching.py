"""Hold a plan against a model, before anything is changed: which layers get how many groups, which are left and why."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn

from ..errors import IdealGroupsError
from ..norms import Inventory, Norm, inventory
from ..results import Plan, Site
from .trained import outside

TOKEN_LAYER_NORM = "layer norm over the last dimension, not over channels"


@dataclass(frozen=True)
class Patterns:
    """Which layer names to take: all, or those that match ``include``; and none that matches ``exclude``."""

    include: str | Sequence[str] | None = None
    exclude: str | Sequence[str] | None = None

    def why_not(self, name: str) -> str | None:
        """The reason ``name`` is not taken, or None.

        >>> Patterns(exclude="stem.*").why_not("stem.bn")
        'matches exclude'
        """
        if self.include is not None and not _matches(name, self.include):
            return "does not match include"
        return "matches exclude" if self.exclude is not None and _matches(name, self.exclude) else None

    def check(self, names: Iterable[str]) -> None:
        """Raise where a pattern matches none of ``names``: a slip of the pen that would go unseen."""
        names = list(names)
        for pattern in (*_listed(self.include), *_listed(self.exclude)):
            if not isinstance(pattern, str):
                raise IdealGroupsError(
                    f"{pattern!r} is no pattern; give names of layers as in 'layer4.*', or a list of them."
                )
            if not any(fnmatchcase(name, pattern) for name in names):
                inside = any(name.startswith(f"{pattern}.") for name in names)
                hint = f"for all that is in it write '{pattern}.*'" if inside else _near(pattern.rstrip(".*"), names)
                raise IdealGroupsError(f"the pattern {pattern!r} matches no normalization layer; {hint}.")


@dataclass(frozen=True)
class Work:
    """``groups``: {layer: number of groups} for the layers to change. ``left``: {layer: why} for all others.

    ``norms``: what the layers of the model are, by their first names.
    """

    groups: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    norms: Mapping[str, Norm] = field(default_factory=dict)


def fit(plan: Plan, model: nn.Module, patterns: Patterns) -> Work:
    """Match every layer of the plan with one of the model.

    Raises:
        IdealGroupsError: the first difference between the two, or a pattern that matches nothing.

    Warns:
        UserWarning: the model has layers that the plan says nothing about, or that did not run when it was made.
    """
    if not isinstance(plan, Plan):
        raise IdealGroupsError(f"a Plan is needed, not a {type(plan).__name__}; make one with idealgroups.plan.")
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
    return work


def _leave(others: dict[str, str], plan: Plan, patterns: Patterns, work: Work) -> None:
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
            f"{len(idle)} normalization layers stay as they are (first: {idle[0]}, which {missed[idle[0]]}); "
            "plan with example inputs that reach them, or exclude them by name.",
            UserWarning,
            stacklevel=outside(),
        )
    if unknown:
        warnings.warn(
            f"the plan does not know {len(unknown)} normalization layers of the model (first: {unknown[0]}), which are "
            "left as they are: was it made for another network?",
            UserWarning,
            stacklevel=outside(),
        )


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
        raise IdealGroupsError(f"{another} the model has no {name}; {_near(site.name, sorted(found.names))}.")
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
    if site.num_groups < 1 or site.num_channels % site.num_groups:
        raise IdealGroupsError(
            f"the plan gives {name} {site.num_groups} groups, which do not divide its {site.num_channels} channels; "
            "choose a divisor."
        )
    if "forward" in vars(module):
        raise IdealGroupsError(
            f"the forward of {name} was exchanged on the layer itself (by a tool that hooks into it); "
            f"undo that first, or leave the layer out with exclude={site.name!r}."
        )
    return module


def _listed(patterns: str | Collection[str] | None) -> Collection[str]:
    if patterns is None:
        return ()
    return patterns if isinstance(patterns, list | tuple | set | frozenset) else (patterns,)


def _matches(name: str, patterns: str | Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _listed(patterns))


def _near(name: str, names: Iterable[str]) -> str:
    names = [name for name in names if name]
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"the nearest name is {near[0]}"
    return f"its normalization layers are {', '.join(names[:3])}{', …' * (len(names) > 3)}" if names else "it has none"
