"""Plan with a closed strategy from shapes alone: no weight is allocated, nothing is computed and nothing measured."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

from torch import nn

from .errors import IdealGroupsError
from .fingerprint import fingerprint
from .measuring.observation import Observation, Optimizer, check_optimizer
from .measuring.prepare import find_weights
from .measuring.shapes import survey_shapes
from .missed import by_function, no_normalization
from .norms.purpose import remarks
from .norms.twins import find_twins
from .records import NotUnderstood, Site
from .results import Plan
from .sandbox.calling import describe
from .sandbox.generators import check_seed
from .theory.layer import Choice, Groups, Layer
from .theory.strategies import Strategy
from .version import made_with


def plan_from_shapes(
    model: nn.Module,
    example_inputs: Any,
    strategy: Strategy,
    *,
    name: str,
    seed: int = 0,
    optimizer: Optimizer = "sgd",
) -> Plan:
    """Return the plan of a closed strategy; ``model`` may be real, fake or on the meta device.

    Raises:
        IdealGroupsError: the model cannot run without values, or no normalization layer runs.
    """
    started = time.perf_counter()
    check_seed(seed)
    check_optimizer(optimizer)
    found, structure = survey_shapes(model, example_inputs)
    if not found.norms:
        raise no_normalization(model, structure.functional, found)
    layers = [
        Layer(
            name=layer,
            num_channels=found.norms[layer].num_channels,
            positions=positions,
            flat=layer in structure.flat,
            weight=structure.weights.get(layer),
        )
        for layer, positions in structure.positions.items()
        if found.norms[layer].num_channels * positions > 2
    ]
    if not layers:
        raise IdealGroupsError(
            f"no normalization layer of {type(model).__name__} with more than two values to normalize ran on these "
            "inputs; give example inputs that reach one."
        )
    ran = {layer.name for layer in layers}
    families = find_twins(model, [layer for layer in found.norms if layer in ran.union(structure.silent_norms)], ran)
    twins = {name_of_copy: twin for name_of_copy, twin in families.items() if twin in ran}
    choice: Choice[Observation] = strategy.choose([layer for layer in layers if layer.name not in twins], _never)
    others = remarks(model, found.norms, [weight.owner for weight in find_weights(model, found)])
    sites = {
        layer.name: Site(
            name=layer.name,
            kind=found.norms[layer.name].kind,
            num_channels=layer.num_channels,
            positions=layer.positions,
            groups_before=found.norms[layer.name].num_groups,
            ideal=choice.ideals[layer.name],
            num_groups=choice.groups[layer.name],
            gain=math.nan,
            note="; ".join(filter(None, (others.get(layer.name), choice.notes.get(layer.name)))),
        )
        for layer in layers
        if layer.name not in twins
    }
    for name_of_copy, twin in twins.items():
        before = found.norms[name_of_copy].num_groups
        sites[name_of_copy] = replace(sites[twin], name=name_of_copy, groups_before=before, note=f"as its twin {twin}")
    missed = by_function(structure.functional, found)
    missed += [
        NotUnderstood(name=layer, why="did not run on these inputs")
        for layer in structure.silent_norms
        if layer not in twins
    ]
    missed += [
        NotUnderstood(name=layer, why="has one or two values to normalize")
        for layer in structure.positions
        if layer not in ran
    ]
    return Plan(
        model=name,
        strategy=strategy.name,
        input=describe(example_inputs),
        seed=seed,
        output=structure.output,
        fingerprint=fingerprint(model),
        made_with=made_with(),
        seconds=round(time.perf_counter() - started, 3),
        sites=tuple(sites.values()),
        not_understood=(*missed, *(NotUnderstood(name=layer, why=why) for layer, why in found.odd.items())),
        optimizer=optimizer,
    )


def _never(groups: Groups, with_curves: bool) -> Observation:
    raise AssertionError("a closed strategy does not measure")
