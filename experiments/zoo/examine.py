"""What is done with one network: build, plan with every strategy, convert, measure, train one step."""

from __future__ import annotations

import math
import platform
import random
import resource
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.api import measure
from idealgroups.errors import NoNormalizationError
from idealgroups.measuring.loss import random_projection
from idealgroups.norms import inventory
from idealgroups.planner import Survey
from idealgroups.results import Plan
from idealgroups.sandbox.calling import call_model, copy_inputs, describe

from ..common.first_rule import strategy_named
from .cases import Case
from .depths import Depths, depths

STRATEGIES = ("isometric", "hybrid", "block", "fixed-32", "channels-16", "layer", "instance")
STAGES = ("build", "plan", "convert", "measure", "train")
PACKAGES = {"smp": "segmentation-models-pytorch"}
Enter = Callable[[str], None]


class MissError(Exception):
    """Something that should hold for every network does not hold for this one."""


def examine(case: Case, enter: Enter = lambda stage: None) -> dict[str, Any]:
    """One record. ``outcome``: ``ok``, ``miss``, or ``nothing to plan``: no supported layer, and the library says so.

    ``seconds``: of processor time.
    """
    started = time.process_time()
    record: dict[str, Any] = {"library": case.library, "model": case.name, "task": case.task, "outcome": "miss"}
    record["versions"] = {name: version(PACKAGES.get(name, name)) for name in ("torch", case.library)}
    record["python"] = platform.python_version()

    def stage(name: str) -> None:
        record["stage"] = name
        enter(name)

    try:
        _examine(case, record, stage)
    except Exception as error:
        record["cause"] = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        record["idealgroups_error"] = isinstance(error, ig.IdealGroupsError)
        if record["stage"] == "plan":
            record["alone"] = _runs_alone(case)
    record["seconds"] = round(time.process_time() - started, 1)
    record["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    return record


def _examine(case: Case, record: dict[str, Any], stage: Enter) -> None:
    stage("build")
    model, inputs = build(case)
    record |= _facts(model)
    record["input"] = describe(inputs)[:200]
    stage("plan")
    if not inventory(model).norms:
        _refusal(model, inputs)
        record["outcome"] = "nothing to plan"
        return
    plans = _plan(case, model, inputs)
    record |= _of_plans(plans)
    stage("convert")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        converted = ig.apply(model, plans["isometric"])
    record["warnings"] = sorted({str(w.message)[:200] for w in caught if w.category is UserWarning})
    _check_groups(converted, plans["isometric"])
    stage("measure")
    record |= _of_layers(case, model, converted, inputs, plans)
    del model
    stage("train")
    record["loss_before"], record["loss_after"] = _train(case, converted, inputs)
    record["outcome"] = "ok"


def build(case: Case) -> tuple[nn.Module, Any]:
    """The network in training mode and its inputs, the same each time."""
    torch.manual_seed(0)
    random.seed(0)
    model, inputs = case.build()
    return model.train(), inputs


def _facts(model: nn.Module) -> dict[str, Any]:
    convolutions = [m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd)]
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "convolutions": len(convolutions),
        "depthwise": sum(c.groups == c.in_channels > 1 for c in convolutions),
        "norms": len(inventory(model).norms),
    }


def _plan(case: Case, model: nn.Module, inputs: Any) -> dict[str, Plan]:
    before = _state(model)
    network = Survey(model, copy_inputs(inputs), loss=case.loss, name=case.name)
    plans = {strategy: network.plan(strategy_named(strategy)) for strategy in STRATEGIES}
    if _state(model) != before:
        raise MissError("planning changed the model or a random state")
    return plans


def _state(model: nn.Module) -> Any:
    """Everything a plan must leave alone, cheaply: versions count changes in place."""
    tensors = [(k, id(v), v._version, v.requires_grad) for k, v in model.state_dict(keep_vars=True).items()]
    flags = [(n, m.training, id(m), "forward" in vars(m), len(m._forward_hooks)) for n, m in model.named_modules()]
    return tensors, flags, [p.grad for p in model.parameters()], torch.get_rng_state().tolist(), random.getstate()


def _refusal(model: nn.Module, inputs: Any) -> None:
    try:
        ig.plan(model, inputs)
    except NoNormalizationError:
        return
    raise MissError("a plan was made for a network without a supported layer")


def _of_plans(plans: Mapping[str, Plan]) -> dict[str, Any]:
    plan = plans["isometric"]
    return {
        "sites": len(plan.sites),
        "not_understood": [[item.name, item.why] for item in plan.not_understood],
        "budget": {s: _round(plans[s].budget, 4) for s in ("isometric",)},
        "one_number": plan.one_number,
        "lowest_trend": _round(plan.lowest_trend),
        "trend_before": _round(plan.trend_before),
        "spread_before": _round(plan.spread_before),
        "trend": {s: _round(p.trend_after) for s, p in plans.items()},
        "spread": {s: _round(p.spread_after) for s, p in plans.items()},
        "groups": [[site.num_channels, site.positions, site.num_groups] for site in plan.sites],
    }


def _check_groups(model: nn.Module, plan: Plan) -> None:
    modules = dict(model.named_modules(remove_duplicate=False))
    for site in plan.sites:
        module = modules[site.name]
        if not isinstance(module, nn.GroupNorm) or module.num_groups != site.num_groups:
            raise MissError(f"{site.name} has not become a GroupNorm of {site.num_groups} groups")


def _of_layers(
    case: Case, model: nn.Module, converted: nn.Module, inputs: Any, plans: Mapping[str, Plan]
) -> dict[str, Any]:
    """log u of every weight layer, and where in the network it is: the evidence on what axis to draw the trend."""
    planned = measure(converted, inputs, loss=case.loss)
    expected = plans["isometric"].trend_after
    if not math.isclose(planned.trend, expected, abs_tol=0.02):
        raise MissError(f"the converted network has a trend of {planned.trend:.3f}, the plan says {expected:.3f}")
    measured = {"isometric": planned}
    for strategy in ("layer", "instance"):
        measured[strategy] = measure(model, inputs, plan=plans[strategy], loss=case.loss)
    log_u = {s: {w.name: math.log(w.relative) for w in m.layers} for s, m in measured.items()}
    names = [w.name for w in planned.layers if all(w.name in values for values in log_u.values())]
    parameters = dict(converted.named_parameters())
    where = depths(converted, copy_inputs(inputs), _loss(case))
    return {
        "layers": len(planned.layers),
        "silent": len(planned.silent),
        "log_u": {s: [round(values[name], 2) for name in names] for s, values in log_u.items()},
        "dimensions": [parameters[name].ndim for name in names],
        "depth": {k: [_round(getattr(where.get(n, Depths()), k), 1) for n in names] for k in Depths._fields},
    }


def _loss(case: Case) -> Callable[[Any], Tensor]:
    return case.loss or random_projection(0)


def _train(case: Case, model: nn.Module, inputs: Any) -> tuple[float, float]:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss = _loss(case)(call_model(model, copy_inputs(inputs)))
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if not gradients or not all(bool(torch.isfinite(g).all()) for g in gradients):
        raise MissError("a gradient of the converted network is not finite")
    optimizer.step()
    with torch.no_grad():
        torch.manual_seed(0)
        after = float(_loss_of_detached(case, call_model(model, copy_inputs(inputs))))
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise MissError("a weight of the converted network is not finite after one step")
    if not math.isfinite(after):
        raise MissError("the loss of the converted network is not finite after one step")
    return round(float(loss.detach()), 4), round(after, 4)


def _loss_of_detached(case: Case, output: Any) -> Tensor:
    """The default loss leaves out what needs no gradient, and without a graph nothing does."""
    from idealgroups.sandbox.tree import tensors

    if case.loss is not None:
        return case.loss(output)
    return sum((t.float().abs().mean() for t in tensors(output) if t.is_floating_point()), torch.zeros(()))


def _runs_alone(case: Case) -> str:
    """Whether the network itself, as built, makes a training step on these inputs: whose fault is it?"""
    try:
        model, inputs = build(case)
        _loss(case)(call_model(model, inputs)).backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return "runs"


def _round(value: float | None, digits: int = 3) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)
