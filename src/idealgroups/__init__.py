"""The ideal number of groups for every group-normalization layer of any network.

plan = ig.plan(model, example_inputs)             # a table; the model stays as it was
model = ig.apply(plan, model)                     # GroupNorm layers with the planned groups
model, plan = ig.convert(model, example_inputs)   # BatchNorm & co. → GroupNorm in one step
model, done = ig.calibrate(model, trained, images)  # what the trained network knows, without labels or training
ig.measure(model, example_inputs)                 # the relative gradient of every weight layer
"""

from importlib.metadata import version as _version

from .api import convert, plan
from .calibration.calibrate import Calibration, calibrate
from .conversion.norm_layer import norm_layer
from .conversion.restoring import restore, set_groups
from .conversion.surgery import apply
from .conversion.travel import groups
from .errors import IdealGroupsError
from .measurement import Measurement, measure
from .results import Plan, Site
from .theory.strategies import STRATEGIES

__version__ = _version("idealgroups")

__all__ = [
    "STRATEGIES",
    "Calibration",
    "IdealGroupsError",
    "Measurement",
    "Plan",
    "Site",
    "apply",
    "calibrate",
    "convert",
    "groups",
    "measure",
    "norm_layer",
    "plan",
    "restore",
    "set_groups",
]
