"""What is done with one network: build, convert, plan with every strategy, train one step, and what planning costs."""

from __future__ import annotations

import math
import random
import resource
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from importlib.metadata import version
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.errors import NoNormalizationError
from idealgroups.measuring.loss import random_projection
from idealgroups.norms import inventory
from idealgroups.planner import SHARED_PASSES
from idealgroups.results import Plan
from idealgroups.sandbox.calling import call_model, copy_inputs, describe
from idealgroups.sandbox.tree import tensors

from ..common.cost import pass_seconds, planning_cost
from .cases import Case

STRATEGIES = (
    *("isometric", "uniform", "uniform-group-size", "block"),
    *("fixed-32", "group-size-16", "layer", "instance"),
)
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
    record["version"] = version(PACKAGES.get(case.library, case.library))

    def stage(name: str) -> None:
        record["stage"] = name
        enter(name)

    try:
        _examine(case, record, stage)
    except Exception as error:
        record["cause"] = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        if record["stage"] == "convert":
            record["alone"] = _runs_alone(case)
    else:
        del record["stage"]
    record["seconds"] = round(time.process_time() - started, 1)
    record["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)
    return record


def _examine(case: Case, record: dict[str, Any], stage: Enter) -> None:
    stage("build")
    _warm_up()
    model, inputs = build(case)
    record |= _facts(model)
    record["input"] = describe(inputs)[:60]
    stage("convert")
    if not inventory(model).norms:
        _refusal(model, inputs)
        record["outcome"] = "nothing to plan"
        return
    before = _state(model)
    with planning_cost(keep=True) as cost, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        started = time.process_time()
        converted, plan = ig.convert(model, copy_inputs(inputs), loss=case.loss)
        seconds = time.process_time() - started
    _check_groups(converted, plan)
    if said := sorted({str(w.message)[:100] for w in caught if w.category is UserWarning}):
        record["warnings"] = said
    stage("compare")
    survey = cost.survey
    assert survey is not None
    with planning_cost() as uniform:
        plans = {"isometric": plan, "uniform": survey.plan("uniform")}
    plans |= {strategy: survey.plan(strategy) for strategy in STRATEGIES if strategy not in plans}
    survey.close()
    if _state(model) != before:
        raise MissError("planning or converting changed the model or a random state")
    record |= _of_plans(plans)
    stage("train")
    record["loss"] = _train(case, converted, inputs)
    del converted
    base = pass_seconds(model, inputs, _loss(case))
    record["passes"] = [cost.passes, SHARED_PASSES + uniform.passes]
    costs = (cost.seconds, cost.shared + uniform.seconds, seconds)
    record["cost"] = [_round(value / base, 1) for value in costs]
    record["pass_seconds"] = _round(base, 3)
    record["outcome"] = "ok"


def _warm_up() -> None:
    """Convert a small network, so that what Python and torch load at first use is no part of the cost."""
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    ig.convert(small, torch.randn(2, 3, 8, 8))


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
    }


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
    sizes = [site.group_size for site in plan.sites]
    return {
        "sites": len(sizes),
        "line": sum(weight.in_line for weight in plan.after.layers) if plan.after else 0,
        "layers": len(plan.after.layers) if plan.after else 0,
        "not_understood": len(plan.not_understood),
        "least_positions": min(site.positions for site in plan.sites),
        "sizes": [min(sizes), median(sizes), max(sizes)],
        "sizes_by_width": _by_width(plan),
        "one_number": plan.one_number,
        "uniform": max(plans["uniform"].num_groups.values()),
        "uniform_group_size": min(plans["uniform-group-size"].group_sizes.values()),
        "lowest_trend": _round(plan.lowest_trend),
        "trend_before": _round(plan.trend_before),
        "strategies": {s: [_round(p.trend_after), _round(p.spread_after, 2), _mean_size(p)] for s, p in plans.items()},
        "coupled": plan.samples_coupled,
    }


def _by_width(plan: Plan) -> dict[str, float]:
    """{channels, to the nearest power of two: geometric mean of the group sizes}, of layers with several positions."""
    sizes: dict[int, list[int]] = defaultdict(list)
    for site in plan.sites:
        if site.positions > 1:
            sizes[2 ** round(math.log2(site.num_channels))].append(site.group_size)
    return {str(width): round(geometric_mean(found), 1) for width, found in sorted(sizes.items())}


def _mean_size(plan: Plan) -> float:
    return round(geometric_mean([site.group_size for site in plan.sites]), 1)


def geometric_mean(values: list[int]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _check_groups(model: nn.Module, plan: Plan) -> None:
    modules = dict(model.named_modules(remove_duplicate=False))
    for site in plan.sites:
        module = modules[site.name]
        if not isinstance(module, nn.GroupNorm) or module.num_groups != site.num_groups:
            raise MissError(f"{site.name} has not become a GroupNorm of {site.num_groups} groups")


def _loss(case: Case) -> Callable[[Any], Tensor]:
    return case.loss or random_projection(0)


def _train(case: Case, model: nn.Module, inputs: Any) -> list[float]:
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
    return [round(float(loss.detach()), 3), round(after, 3)]


def _loss_of_detached(case: Case, output: Any) -> Tensor:
    """The default loss leaves out what needs no gradient, and without a graph nothing does."""
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
