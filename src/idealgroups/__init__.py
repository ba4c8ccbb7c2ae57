"""The ideal number of groups for every group-normalization layer of any network.

plan = ig.plan(model, example_inputs)             # a table; the model stays as it was
model = ig.apply(plan, model)                     # GroupNorm layers with the planned groups
model, plan = ig.convert(model, example_inputs)   # BatchNorm & co. → GroupNorm in one step
ig.measure(model, example_inputs)                 # the relative gradient of every weight layer
"""

from importlib.metadata import version as _version

from .building import norm_layer
from .errors import IdealGroupsError
from .measuring import Measurement, measure
from .planning import convert, plan
from .plans import Plan, Site
from .strategies import STRATEGIES
from .surgery import apply

__version__ = _version("idealgroups")

__all__ = [
    "STRATEGIES",
    "IdealGroupsError",
    "Measurement",
    "Plan",
    "Site",
    "apply",
    "convert",
    "measure",
    "norm_layer",
    "plan",
]
