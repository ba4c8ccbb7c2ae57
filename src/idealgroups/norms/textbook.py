"""Does a normalization layer with a forward of its own do what its class is named after, and nothing else?"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..sandbox.copying import CopyAnyTensor
from .norm import Norm

_SPATIAL_SHAPES = ((2, 2), (3,), (2, 2, 2), ())
_GAMMA, _MEAN, _VARIANCE = 10.0, 0.5, 2.0
"""What a layer on trial has: a large γ, so that a bound on its output shows; statistics that no past has made."""


@torch.no_grad()
def deviation_from_textbook(module: nn.Module, norm: Norm) -> str | None:
    """Run the class's forward on a copy and a small input; a sentence where it is not the textbook layer, else None.

    γ and running statistics are set, so that a layer initialised to zero shows what it does, and one that has been
    trained does the same as one that has not; hooks do not run. A group norm must also take another number of groups. A
    layer on the meta device, which cannot run, is believed.
    """
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        return None
    try:
        twin = _twin(module, norm)
    except Exception as error:  # whatever a user's __deepcopy__ or an exotic tensor raises
        return f"{norm.kind} has a forward of its own, which cannot be tried ({type(error).__name__}: {error})"
    with torch.random.fork_rng(devices=[]):
        found = _difference(twin, norm)
        if found is None and isinstance(twin, nn.GroupNorm) and norm.num_channels > 1:
            twin.num_groups = norm.num_channels if twin.num_groups == 1 else 1
            if _difference(twin, norm) is not None:
                return f"{norm.kind} keeps its number of groups elsewhere than in num_groups, so it cannot be changed"
    return found


def _difference(twin: nn.Module, norm: Norm) -> str | None:
    """What ``twin`` does otherwise than the textbook, in a sentence."""
    failure = ""
    # On (N, C) alone, layer norm over channels cannot be told from layer norm over the last dimension, and an instance
    # norm, which has nothing to normalize there, may take the samples for its positions (torch_geometric).
    positions_only = isinstance(twin, nn.LayerNorm | nn.modules.instancenorm._InstanceNorm)
    for shape in _SPATIAL_SHAPES[:-1] if positions_only else _SPATIAL_SHAPES:
        size = torch.Size((3, norm.num_channels, *shape))
        x = torch.sin(torch.arange(size.numel(), dtype=torch.float32)).reshape(size)
        try:
            y: object = type(twin).forward(twin, x.clone())
        except Exception as error:  # most likely the wrong number of dimensions
            failure = failure or f"{type(error).__name__}: {error}"
            continue
        expected = norm.finish(twin, textbook(twin, norm, x))
        if isinstance(y, Tensor) and y.shape == x.shape and torch.allclose(y.float(), expected, rtol=1e-3, atol=1e-3):
            return None
        return f"{norm.kind} does more than normalize, scale and shift, which a group norm would lose"
    return f"{norm.kind} has a forward of its own, which does not take one tensor of shape (N, C, …) ({failure})"


def textbook(module: nn.Module, norm: Norm, x: Tensor) -> Tensor:
    """What ``module`` is by name, in evaluation mode: group, instance, batch or channel-wise layer norm of ``x``."""
    gamma, beta = norm.scale(module), norm.shift(module)
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, gamma, beta, norm.eps)
    if "running_mean" not in module._buffers:
        return F.layer_norm(x.movedim(1, -1), (norm.num_channels,), gamma, beta, norm.eps).movedim(-1, 1)
    mean, var = module._buffers["running_mean"], module._buffers["running_var"]
    normalize = F.instance_norm if isinstance(module, nn.modules.instancenorm._InstanceNorm) else F.batch_norm
    return normalize(x, mean, var, gamma, beta, mean is None, eps=norm.eps)


def _twin(module: nn.Module, norm: Norm) -> nn.Module:
    with torch.inference_mode(False), CopyAnyTensor():
        twin = copy.deepcopy(module).float().cpu().eval()
    for part in twin.modules():
        for key, value in vars(part).items():
            if "hooks" in key and isinstance(value, dict):
                value.clear()
    if (gamma := norm.scale(twin)) is not None:
        gamma.fill_(_GAMMA)
    for name, value in (("running_mean", _MEAN), ("running_var", _VARIANCE)):
        statistic = twin._buffers.get(name)
        if isinstance(statistic, Tensor):
            statistic.fill_(value)
    return twin
