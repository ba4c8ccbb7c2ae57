"""Other ways to fit γ and β than least squares on what the reference layer puts out, tried and compared with it.

``moments``: the mean and the deviation of every channel become those of the reference; γ does not shrink where the two
signals agree little. ``behind``: least squares on what comes out behind a ReLU, where one follows at once. A second
sweep over the layers is no other way: a layer's fit depends on those before it alone, and they would stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idealgroups.calibration.statistics import EPS_STEPS

NEWTON_STEPS = 10

Fit = tuple[Tensor, Tensor, float]
"""γ and β of every channel, and the error that tells which eps is best."""


@torch.no_grad()
def fit_all(model: nn.Module, reference: nn.Module, x: Tensor, how: str) -> nn.Module:
    """Fit the group norms of ``model`` to the layers of the same name in ``reference``; in place."""
    targets: dict[str, Tensor] = {}
    names = [name for name, module in model.named_modules() if isinstance(module, nn.GroupNorm)]
    there, here = dict(reference.named_modules()), dict(model.named_modules())
    keep = [there[name].register_forward_hook(partial(_keep, targets, name)) for name in names]
    reference.eval()(x)
    fit = [
        here[name].register_forward_pre_hook(partial(_fit, targets, name, _way(how, behind_relu(model, name))))
        for name in names
    ]
    model.eval()(x)
    for handle in keep + fit:
        handle.remove()
    return model


def behind_relu(model: nn.Module, name: str) -> bool:
    """Whether the layer is followed by a ReLU in the same ``Sequential``."""
    parent, _, key = name.rpartition(".")
    holder = model.get_submodule(parent)
    return (
        isinstance(holder, nn.Sequential)
        and int(key) + 1 < len(holder)
        and isinstance(holder[int(key) + 1], nn.ReLU | nn.ReLU6)
    )


def least_squares(x: Tensor, t: Tensor) -> Fit:
    """``x``, ``t``: (C, S)."""
    x_off, t_off = x - x.mean(1, keepdim=True), t - t.mean(1, keepdim=True)
    gamma = (x_off * t_off).sum(1) / x_off.square().sum(1).clamp_min(1e-12)
    error = float((gamma[:, None] * x_off - t_off).square().sum())
    return gamma, t.mean(1) - gamma * x.mean(1), error


def moments(x: Tensor, t: Tensor) -> Fit:
    """The deviation of t, with the sign that least squares has; its eps too."""
    slope, _, error = least_squares(x, t)
    gamma = slope.sign() * t.std(1) / x.std(1).clamp_min(1e-6)
    return gamma, t.mean(1) - gamma * x.mean(1), error


def behind(x: Tensor, t: Tensor) -> Fit:
    """Gauss-Newton from least squares on relu(γx + β) - relu(t); a step that does not help a channel is not taken."""
    gamma, beta, _ = least_squares(x, t)
    wanted = t.relu()

    def errors(gamma: Tensor, beta: Tensor) -> Tensor:
        return ((gamma[:, None] * x + beta[:, None]).relu() - wanted).square().sum(1)

    best = errors(gamma, beta)
    for _ in range(NEWTON_STEPS):
        y = gamma[:, None] * x + beta[:, None]
        active = (y > 0).float()
        off = active * (y - wanted)
        n, sx, sxx = active.sum(1), (active * x).sum(1), (active * x * x).sum(1)
        rx, r = (off * x).sum(1), off.sum(1)
        determinant = (n * sxx - sx * sx).clamp_min(1e-6)
        new_gamma, new_beta = gamma - (n * rx - sx * r) / determinant, beta - (sxx * r - sx * rx) / determinant
        found = errors(new_gamma, new_beta)
        better = found < best
        gamma, beta = torch.where(better, new_gamma, gamma), torch.where(better, new_beta, beta)
        best = torch.where(better, found, best)
    return gamma, beta, float(best.sum())


WAYS = {"least squares": least_squares, "moments": moments, "behind": behind}


def _way(how: str, relu: bool) -> Callable[[Tensor, Tensor], Fit]:
    return least_squares if how == "behind" and not relu else WAYS[how]


def _keep(targets: dict[str, Tensor], name: str, module: nn.Module, args: Any, output: Tensor) -> None:
    targets[name] = output


def _fit(
    targets: dict[str, Tensor], name: str, way: Callable[[Tensor, Tensor], Fit], module: nn.GroupNorm, args: Any
) -> None:
    z, t = args[0], _flat(targets.pop(name))
    typical = float(z.reshape(len(z), module.num_groups, -1).var(2, correction=0).mean())
    fits = {}
    for eps in (module.eps, *(step * typical for step in EPS_STEPS)):
        fits[eps] = way(_flat(F.group_norm(z, module.num_groups, eps=eps)), t)
    module.eps = min(fits, key=lambda eps: fits[eps][2])
    gamma, beta, _ = fits[module.eps]
    module.weight.copy_(gamma)
    module.bias.copy_(beta)


def _flat(x: Tensor) -> Tensor:
    """(N, C, …) → (C, S)."""
    return x.transpose(0, 1).flatten(1)
