"""Plans made by hand, so that tests of surgery do not depend on planning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import nn

from idealgroups.norms import inventory
from idealgroups.records import NotUnderstood, Site
from idealgroups.results import Plan


def make_site(name: str, num_channels: int, num_groups: int, kind: str = "BatchNorm2d") -> Site:
    return Site(
        name=name,
        kind=kind,
        num_channels=num_channels,
        positions=64,
        groups_before=None,
        ideal=float(num_groups),
        num_groups=num_groups,
        gain=0.1,
    )


def make_plan(sites: tuple[Site, ...], not_understood: tuple[NotUnderstood, ...] = ()) -> Plan:
    return Plan(
        model="by hand",
        strategy="isometric",
        input="3x8x8",
        seed=0,
        budget=0.1,
        sites=sites,
        not_understood=not_understood,
    )


def plan_for(
    model: nn.Module, groups: Mapping[str, int] | Callable[[str, int], int] = lambda name, c: math.gcd(c, 4)
) -> Plan:
    """A plan for every norm in ``model``; ``groups``: {name: number}, or a function of name and number of channels."""
    sites = []
    for name, norm in inventory(model).norms.items():
        if isinstance(groups, Mapping) and name not in groups:
            continue
        number = groups[name] if isinstance(groups, Mapping) else groups(name, norm.num_channels)
        sites.append(make_site(name, norm.num_channels, number, norm.kind))
    return make_plan(tuple(sites))


def mixed_groups(name: str, num_channels: int) -> int:
    """A number that differs from layer to layer, so that an exchange of two layers shows."""
    divisors = [d for d in range(1, num_channels + 1) if num_channels % d == 0 and num_channels // d > 1]
    return divisors[sum(map(ord, name)) % len(divisors)] if divisors else 1


def groups_in(model: nn.Module) -> dict[str, int]:
    """{name: number of groups} of every group norm."""
    return {name: module.num_groups for name, module in model.named_modules() if isinstance(module, nn.GroupNorm)}
