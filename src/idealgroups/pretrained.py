"""Plan, convert and calibrate a trained network in one go: what ``convert`` does where there is something to keep."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic

from torch import nn

from .calibration.batches import count_samples
from .calibration.calibrate import fit_candidates, write_layers
from .calibration.engine import Outcome
from .conversion.surgery import replace_norms
from .measuring.observation import Observation
from .records import Site
from .results import Plan
from .sandbox.copying import Model
from .theory.formulas import MIN_GROUP_CHANNELS, divisors
from .trial import Watch, replace_and_try

FAITHFUL = "faithful"
"""The strategy that needs a trained network and data: groups are chosen while the layers are calibrated."""


@dataclass(frozen=True)
class Converted(Generic[Model]):
    """A converted and calibrated network, and its plan with what calibration found."""

    model: Model
    plan: Plan


def convert_trained(
    plan: Plan,
    before: Observation,
    promised: Observation,
    model: Model,
    batches: list[Any],
    watch: Watch,
    *,
    choosing: bool,
    seed: int,
    inplace: bool,
    include: str | Collection[str] | None,
    exclude: str | Collection[str] | None,
) -> Converted[Model]:
    """Convert ``model`` and calibrate it on ``batches``; its groups are those of the plan or chosen on the way.

    ``plan`` was made for ``model``; ``before`` and ``promised`` were measured without and with it. ``batches``: from
    :func:`read_batches`. ``watch`` makes the observer with which the result is tried. ``choosing``: calibration chooses
    the groups. Others as in :func:`idealgroups.convert`.
    """
    draft = replace_and_try(
        model, plan, before, promised, watch, include=include, exclude=exclude, calibrated=True
    ).model
    outcome = fit_candidates(draft, model, batches, _candidates(plan, draft, choosing), seed=seed, is_copy=True)
    del draft  # before another copy is made
    if choosing:
        groups = plan.num_groups | {site: layer.num_groups for site, layer in outcome.layers.items()}
        plan = _with_groups(plan, groups)
    plan = with_residuals(plan, outcome, count_samples(batches))
    done = replace_norms(model, plan, inplace=inplace, include=include, exclude=exclude, calibrated=True).model
    write_layers(done, outcome.layers)
    return Converted(done, plan)


def _with_groups(plan: Plan, groups: Mapping[str, int]) -> Plan:
    """The plan with other groups, which nothing was measured with: their gains and trend are not known."""
    sites = tuple(
        dataclasses.replace(site, num_groups=groups[site.name], ideal=float(groups[site.name]), gain=math.nan)
        for site in plan.sites
    )
    return dataclasses.replace(plan, strategy=FAITHFUL, sites=sites, after=None)


def with_residuals(plan: Plan, outcome: Outcome, samples: int) -> Plan:
    """The plan with eps and residual of every layer, and the residual of the output."""

    def calibrated(site: Site) -> Site:
        layer = outcome.layers.get(site.name)
        if layer is None:
            return site
        return dataclasses.replace(site, eps=layer.fit.eps, residual=layer.fit.residual)

    return dataclasses.replace(
        plan,
        sites=tuple(map(calibrated, plan.sites)),
        calibrated_on=samples,
        output_residual=outcome.output_residual,
    )


def _candidates(plan: Plan, draft: nn.Module, choosing: bool) -> dict[str, tuple[int, ...]]:
    """Of every planned layer: its own number of groups, or all that leave two channels in a group."""
    canonical = {name for name, _ in draft.named_modules()}
    sites = [site for site in plan.sites if site.name in canonical]
    if not choosing:
        return {site.name: (site.num_groups,) for site in sites}
    return {
        site.name: tuple(
            groups
            for groups in divisors(site.num_channels)
            if groups <= max(site.num_channels // MIN_GROUP_CHANNELS, 1)
        )
        for site in sites
    }
