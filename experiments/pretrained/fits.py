"""Other ways to fit γ and β than least squares on what the reference layer puts out, tried and compared with it.

``moments``: the mean and the deviation of every channel become those of the reference; γ does not shrink where the two
signals agree little. ``ridge``: γ shrunk a little. ``behind``: least squares on what comes out behind a ReLU, where one
follows at once. ``at once``: every layer is fitted on what it gets in the reference, whatever the layers before it put
out. ``permuted``: groups of channels that are no neighbours, chosen so that what a group normalizes away says least
about the sample. A second sweep over the layers is no other way: a layer's fit depends on those before it alone, and
they would stay as they are.
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

RIDGE = 0.03
"""Added to the variance of what is scaled: one, or less where eps is large."""

Fit = tuple[Tensor, Tensor, float]
"""γ and β of every channel, and the error that tells which eps is best."""


@torch.no_grad()
def fit_all(model: nn.Module, reference: nn.Module, x: Tensor, how: str) -> nn.Module:
    """Fit the group norms of ``model`` to the layers of the same name in ``reference``; in place."""
    there = dict(reference.named_modules())
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.GroupNorm)}
    ways = {name: _way(how, behind_relu(model, name)) for name in layers}
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = [there[name].register_forward_hook(partial(_keep, seen, name)) for name in layers]
    reference.eval()(x)
    if how == "at once":
        for name, module in layers.items():
            _fit(module, *seen[name], ways[name])
    else:
        for name, module in layers.items():
            if how == "permuted":
                module.__class__ = Permuted
            hooks.append(module.register_forward_pre_hook(partial(_fit_on_the_way, seen, name, ways[name])))
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return model


class Permuted(nn.GroupNorm):
    """Group norm of channels taken in the order ``order``, (C,), which is chosen when the layer is fitted."""

    order: Tensor

    def forward(self, z: Tensor) -> Tensor:
        """(N, C, …) → the same."""
        y = F.group_norm(z[:, self.order], self.num_groups, eps=self.eps)[:, self.order.argsort()]
        shape = (1, -1, *[1] * (z.ndim - 2))
        return y * self.weight.view(shape) + self.bias.view(shape)


def steady_groups(z: Tensor, num_groups: int) -> Tensor:
    """The order of channels (C,) in which neighbours form groups whose power changes least from sample to sample.

    Greedy, the strongest channels first: one into each group, then each of the others into the group, of those that
    are not full, to whose relative variance it adds least.

    >>> z = torch.tensor([[1.0, 1.0, 2.0, 2.0], [2.0, 2.0, 1.0, 1.0]])[..., None]  # (2, 4, 1)
    >>> steady_groups(z, 2).reshape(2, 2).sort(1).values.tolist()
    [[0, 2], [1, 3]]
    """
    power = z.flatten(2).square().mean(2)
    channels = power.shape[1]
    strongest = power.mean(0).argsort(descending=True, stable=True).tolist()
    members = [[channel] for channel in strongest[:num_groups]]
    sums = power[:, strongest[:num_groups]].T.clone()
    for channel in strongest[num_groups:]:
        new = sums + power[:, channel]
        worse = _relative_variance(new) - _relative_variance(sums)
        for group, inside in enumerate(members):
            if len(inside) == channels // num_groups:
                worse[group] = torch.inf
        best = int(worse.argmin())
        members[best].append(channel)
        sums[best] = new[best]
    return torch.tensor([channel for inside in members for channel in inside])


def _relative_variance(power: Tensor) -> Tensor:
    return power.var(1, correction=0) / power.mean(1).square().clamp_min(1e-30)


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


def ridge(x: Tensor, t: Tensor) -> Fit:
    """Least squares that is charged for γ²."""
    slope, _, error = least_squares(x, t)
    variance = x.var(1, correction=0)
    gamma = slope * variance / (variance + RIDGE)
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


WAYS: dict[str, Callable[[Tensor, Tensor], Fit]] = {
    "least squares": least_squares,
    "moments": moments,
    "behind": behind,
    "ridge": ridge,
    "at once": least_squares,
    "permuted": least_squares,
}


def _way(how: str, relu: bool) -> Callable[[Tensor, Tensor], Fit]:
    return least_squares if how == "behind" and not relu else WAYS[how]


def _keep(seen: dict[str, tuple[Tensor, Tensor]], name: str, module: nn.Module, args: Any, output: Tensor) -> None:
    seen[name] = args[0].clone(), output.clone()


def _fit_on_the_way(
    seen: dict[str, tuple[Tensor, Tensor]],
    name: str,
    way: Callable[[Tensor, Tensor], Fit],
    module: nn.GroupNorm,
    args: Any,
) -> None:
    _fit(module, args[0], seen.pop(name)[1], way)


def _fit(module: nn.GroupNorm, z: Tensor, target: Tensor, way: Callable[[Tensor, Tensor], Fit]) -> None:
    order = torch.arange(z.shape[1], device=z.device)
    if isinstance(module, Permuted):
        order = module.order = steady_groups(z, module.num_groups).to(z.device)
    arranged, t = z[:, order], _flat(target)
    typical = float(arranged.reshape(len(z), module.num_groups, -1).var(2, correction=0).mean())
    fits = {}
    for eps in (module.eps, *(step * typical for step in EPS_STEPS)):
        normalized = F.group_norm(arranged, module.num_groups, eps=eps)[:, order.argsort()]
        fits[eps] = way(_flat(normalized), t)
    module.eps = min(fits, key=lambda eps: fits[eps][2])
    gamma, beta, _ = fits[module.eps]
    module.weight.copy_(gamma)
    module.bias.copy_(beta)


def _flat(x: Tensor) -> Tensor:
    """(N, C, …) → (C, S)."""
    return x.transpose(0, 1).flatten(1)
