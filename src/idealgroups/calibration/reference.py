"""What the normalization layers of the reference network put out, at a bounded random subset of positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import IdealGroupsError
from ..norms import Norm, inventory
from ..norms.textbook import textbook
from .statistics import CallMoments, Floats

MAX_ELEMENTS = 4096
"""Samples times positions that are kept of a channel in one call; least squares for three numbers needs no more."""


@dataclass(frozen=True)
class Target:
    """The output of one call before any activation: ``values`` (N, C, m) at ``positions`` (N, m), None for all."""

    values: Tensor
    positions: Tensor | None

    def moments(self, name: str, z: Tensor) -> CallMoments:
        """Of the input ``z`` (N, C, …) of the same call in the other network, and of these values."""
        flat = _flat(z)
        if flat.shape[:2] != self.values.shape[:2] or (self.positions is None and flat.shape != self.values.shape):
            raise IdealGroupsError(
                f"{name} gets {tuple(z.shape)} in the model and {tuple(self.values.shape[:2])} samples and channels in "
                "the reference; give two networks of one structure."
            )
        mean, var = _mean_var(flat.float())
        kept, t = _take(flat, self.positions).float(), self.values
        z_mean, t_mean = kept.mean(2, keepdim=True), t.mean(2, keepdim=True)
        z_off, t_off = kept - z_mean, t - t_mean
        return CallMoments(
            mean=_numpy(mean),
            var=_numpy(var),
            count=kept.shape[2],
            z=_numpy(z_mean[..., 0]),
            t=_numpy(t_mean[..., 0]),
            zz=_numpy(_mean_product(z_off, z_off)),
            tt=_numpy(_mean_product(t_off, t_off)),
            zt=_numpy(_mean_product(z_off, t_off)),
        )


def record_targets(
    reference: nn.Module, names: Collection[str], run: Callable[[nn.Module], Any], seed: int
) -> tuple[Mapping[str, list[Target]], Any]:
    """The calls of the layers ``names`` during ``run(reference)``, in order, and what the network returned."""
    draw = torch.Generator().manual_seed(seed)
    targets: dict[str, list[Target]] = {}
    modules = dict(reference.named_modules(remove_duplicate=False))
    norms = {id(modules[name]): norm for name, norm in inventory(reference).norms.items()}
    hooks = [
        modules[name].register_forward_hook(_hook(name, norms[id(modules[name])], targets, draw), with_kwargs=True)
        for name in names
    ]
    try:
        return targets, run(reference)
    finally:
        for hook in hooks:
            hook.remove()


def layer_input(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The tensor that a normalization layer was called on."""
    found = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
    if found is None or found.ndim < 2:
        raise IdealGroupsError(f"{name} is not called on a tensor of shape (N, C, …), so it cannot be calibrated.")
    return found


def _hook(name: str, norm: Norm, targets: dict[str, list[Target]], draw: torch.Generator) -> Callable[..., None]:
    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        z = layer_input(name, args, kwargs)
        flat = _flat(textbook(module, norm, z) if norm.after else output)
        samples, _, size = flat.shape
        wanted = math.ceil(MAX_ELEMENTS / max(samples, 1))
        positions = None
        if wanted < size:
            positions = torch.randint(size, (samples, wanted), generator=draw).to(flat.device)
        values = _take(flat, positions).float()
        targets.setdefault(name, []).append(Target(values.clone() if positions is None else values, positions))

    return keep


def _flat(x: Tensor) -> Tensor:
    """(N, C, …) → (N, C, S)."""
    return x.detach().reshape(*x.shape[:2], -1)


def _take(flat: Tensor, positions: Tensor | None) -> Tensor:
    if positions is None:
        return flat
    return flat.gather(2, positions[:, None, :].expand(-1, flat.shape[1], -1))


def _mean_var(flat: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C, S) → (N, C) twice; three times as fast as ``torch.var_mean`` on a processor, and as exact."""
    mean = flat.mean(2, keepdim=True)
    return mean[..., 0], torch.linalg.vector_norm(flat - mean, dim=2).square() / flat.shape[2]


def _mean_product(a: Tensor, b: Tensor) -> Tensor:
    """(N, C, m) twice → (N, C), without a product of that size in memory."""
    return torch.einsum("ncm,ncm->nc", a, b) / a.shape[2]


def _numpy(x: Tensor) -> Floats:
    array: Floats = np.asarray(x.cpu().double().numpy())
    return array
