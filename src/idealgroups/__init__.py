"""The ideal number of groups for every group-normalization layer of any network.

plan = ig.plan(model, example_inputs)             # a table; the model stays as it was
model = ig.apply(model, plan)                     # GroupNorm layers with the planned groups
model, plan = ig.convert(model, example_inputs)   # BatchNorm & co. → GroupNorm in one step
model, done = ig.calibrate(model, trained, images)  # what the trained network knows, without labels or training
ig.measure(model, example_inputs)                 # the relative gradient of every weight layer
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from .api import apply, convert, measure, plan
    from .calibration.calibrate import Calibration, calibrate
    from .comparison import Comparison, compare
    from .conversion.norm_layer import norm_layer
    from .conversion.restoring import restore, set_groups
    from .conversion.travel import groups
    from .errors import IdealGroupsError
    from .planner import Survey
    from .records import Gradients, NotUnderstood, Site, WeightGradient
    from .repeats import LayerRange, Repeats, repeat
    from .results import Measurement, Plan
    from .sandbox.coupling import coupled
    from .theory.layer import Layer, WeightShape
    from .theory.strategies import (
        STRATEGIES,
        Block,
        Fixed,
        Gcd,
        GroupSize,
        Instance,
        Isometric,
        OneGroup,
        Quarter,
        Sqrt,
        Uniform,
    )

    __version__: str

__all__ = [
    "STRATEGIES",
    "Block",
    "Calibration",
    "Comparison",
    "Fixed",
    "Gcd",
    "Gradients",
    "GroupSize",
    "IdealGroupsError",
    "Instance",
    "Isometric",
    "Layer",
    "LayerRange",
    "Measurement",
    "NotUnderstood",
    "OneGroup",
    "Plan",
    "Quarter",
    "Repeats",
    "Site",
    "Sqrt",
    "Survey",
    "Uniform",
    "WeightGradient",
    "WeightShape",
    "apply",
    "calibrate",
    "compare",
    "convert",
    "coupled",
    "groups",
    "measure",
    "norm_layer",
    "plan",
    "repeat",
    "restore",
    "set_groups",
]

_HOMES = {
    "STRATEGIES": "theory.strategies",
    "Block": "theory.strategies",
    "Calibration": "calibration.calibrate",
    "Comparison": "comparison",
    "Fixed": "theory.strategies",
    "Gcd": "theory.strategies",
    "GroupSize": "theory.strategies",
    "Gradients": "records",
    "IdealGroupsError": "errors",
    "Instance": "theory.strategies",
    "Isometric": "theory.strategies",
    "Layer": "theory.layer",
    "LayerRange": "repeats",
    "Measurement": "results",
    "NotUnderstood": "records",
    "OneGroup": "theory.strategies",
    "Plan": "results",
    "Quarter": "theory.strategies",
    "Repeats": "repeats",
    "Site": "records",
    "Sqrt": "theory.strategies",
    "Survey": "planner",
    "Uniform": "theory.strategies",
    "WeightGradient": "records",
    "WeightShape": "theory.layer",
    "apply": "api",
    "calibrate": "calibration.calibrate",
    "compare": "comparison",
    "convert": "api",
    "coupled": "sandbox.coupling",
    "groups": "conversion.travel",
    "measure": "api",
    "norm_layer": "conversion.norm_layer",
    "plan": "api",
    "repeat": "repeats",
    "restore": "conversion.restoring",
    "set_groups": "conversion.restoring",
}
"""{public name: module that defines it}. The module is imported when the name is first used, and torch with it."""


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def _version() -> str:
    from .version import own_version

    return own_version()
