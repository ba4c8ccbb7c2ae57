"""Every way to go from a trained batch-norm network to the one that is scored or fine-tuned."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from idealgroups.calibration.batches import read_batches
from idealgroups.calibration.calibrate import Calibration, calibrate, fit_candidates, fixed_candidates, write_layers
from idealgroups.norms import inventory
from idealgroups.theory.formulas import divisors
from idealgroups.theory.grouping import largest_divisor

SAMPLES = 512
"""Unlabelled samples that an arm may calibrate or distil on."""

WIDTHS: dict[str, Callable[[int], int]] = {
    "one": lambda channels: 1,
    "size 16": lambda channels: largest_divisor(channels, channels / 16),
    "32": lambda channels: math.gcd(32, channels),
}
"""Groups of C channels: one, groups of 16 channels or more, and 32 as Opacus has it."""


@dataclass(frozen=True)
class Converted:
    """A network ready for scoring; the rest is what calibration said, None without one."""

    model: nn.Module
    output_residual: float | None = None
    worst_residual: float | None = None
    groups: tuple[int, ...] = ()


def convert(arm: str, trained: nn.Module, pool: Tensor, seed: int) -> Converted:
    """``trained`` by one of ``ARMS``; ``pool``: unlabelled samples."""
    base, _, extra = arm.partition(" + ")
    kind, _, width = base.partition(": ")
    if kind in ("batch norm", "frozen"):
        result = Converted(copy.deepcopy(trained))
    elif kind == "opacus":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = Converted(ModuleValidator.fix(copy.deepcopy(trained)))
    elif kind == "naive":
        result = Converted(group_norms(trained, WIDTHS[width]))
    elif width.startswith("faithful"):
        result = faithful(trained, pool, seed, float(width.partition(" ")[2]))
    else:
        model, done = calibrate(group_norms(trained, WIDTHS[width]), trained, pool, seed=seed)
        result = _converted(model, done)
    if extra == "distilled":
        result = Converted(distil(result.model, trained, pool, seed), None, None, result.groups)
    return result


def group_norms(trained: nn.Module, groups: Callable[[int], int]) -> nn.Module:
    """Group norms with the γ, β and eps of the batch norms: what everybody does by hand."""
    model = copy.deepcopy(trained)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            channels = module.num_features
            new = nn.GroupNorm(groups(channels), channels, eps=module.eps)
            new.load_state_dict({"weight": module.weight, "bias": module.bias})
            parent, _, key = name.rpartition(".")
            setattr(model.get_submodule(parent), key, new.to(module.weight.device))
    return model


def freeze(model: nn.Module) -> nn.Module:
    """Two-dimensional batch norms as constants, γ and β too; Opacus refuses a BatchNorm2d in any mode. In place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            new = FrozenBatchNorm2d(module.num_features, module.eps)
            kept = {k: v for k, v in module.state_dict().items() if k != "num_batches_tracked"}
            new.load_state_dict(kept)
            parent, _, key = name.rpartition(".")
            setattr(model.get_submodule(parent), key, new.to(module.weight.device))
    return model


def faithful(trained: nn.Module, pool: Tensor, seed: int, budget: float) -> Converted:
    """Calibrated, each layer with the most groups within ``budget``, two channels a group or more."""
    model = group_norms(trained, WIDTHS["one"])
    batches = read_batches(model, pool, SAMPLES)
    fixed, _ = fixed_candidates(model, trained)
    norms = inventory(model).norms
    candidates = {
        name: tuple(d for d in divisors(norms[name].num_channels) if d == 1 or 2 * d <= norms[name].num_channels)
        for name in fixed
    }
    outcome = fit_candidates(model, trained, batches, candidates, budget=budget, seed=seed)
    write_layers(model, outcome.layers)
    worst = max(layer.fit.residual for layer in outcome.layers.values())
    return Converted(
        model, outcome.output_residual, worst, tuple(layer.num_groups for layer in outcome.layers.values())
    )


def distil(model: nn.Module, trained: nn.Module, pool: Tensor, seed: int, steps: int = 60) -> nn.Module:
    """``steps`` of Adam on the squared distance to the trained network's outputs; no labels."""
    trained.eval()
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    draw = torch.Generator().manual_seed(seed)
    size = min(64, len(pool)) if pool.ndim == 4 and pool.shape[-1] <= 32 else min(16, len(pool))
    for _ in range(steps):
        x = pool[torch.randperm(len(pool), generator=draw)[:size]]
        with torch.no_grad():
            wanted = trained(x)
        optimizer.zero_grad(set_to_none=True)
        F.mse_loss(model(x), wanted).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def _converted(model: nn.Module, done: Calibration) -> Converted:
    groups = tuple(m.num_groups for m in model.modules() if isinstance(m, nn.GroupNorm))
    return Converted(model, done.output_residual, max(done.residuals.values()), groups)
