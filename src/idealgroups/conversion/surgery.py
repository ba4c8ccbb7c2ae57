"""Give the normalization layers of a model their planned number of groups. The only file that changes modules.

A layer is turned into a group norm where it stands: the object stays and its class becomes ``torch.nn.GroupNorm``, as
torch's own lazy modules do it. So every parent, list or hook that knows the layer knows the group norm, a layer that is
the model itself can be converted, and the very same γ and β parameters stay in use (optimizers and ties keep theirs).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from torch import Tensor, nn

from ..norms import Norm
from ..norms.group_norm_act import GroupNormAct
from ..results import Plan
from ..sandbox.copying import Model, copy_model
from ..sandbox.supported import refuse_unsupported
from .matching import Patterns, fit
from .trained import warn_of_lost_training

_SETTINGS = {"num_features", "num_channels", "num_groups", "eps", "affine", "elementwise_affine", "normalized_shape"}
_SETTINGS |= {"momentum", "track_running_stats", "process_group", "data_format", "_fast_norm"}
"""What the constructors of normalization layers set; anything else that someone put on a layer stays there."""


@dataclass(frozen=True)
class Surgery(Generic[Model]):
    """What was done. ``print(surgery)`` is a summary.

    ``model``: the converted model. ``replaced``: {layer: (class before, number of groups now)}. ``left``: {layer: why},
    every layer that normalizes and is as it was.
    """

    model: Model
    replaced: Mapping[str, tuple[str, int]]
    left: Mapping[str, str]

    def __str__(self) -> str:
        kinds = Counter(kind for kind, _ in self.replaced.values())
        reasons = Counter(self.left.values())
        lines = [f"replaced {len(self.replaced)}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())]
        lines += [f"left {n}: {why}" for why, n in reasons.most_common()]
        return "\n".join(line.removesuffix(": ") for line in lines)


def apply(
    plan: Plan,
    model: Model,
    *,
    inplace: bool = False,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
) -> Model:
    """The model with a group norm of the planned number of groups in place of every planned layer.

    Arguments, errors and warnings as in :func:`replace_norms`, which also tells what was replaced, left and why.

    >>> import torch, idealgroups as ig
    >>> net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU())
    >>> plan = ig.plan(net, torch.randn(2, 3, 8, 8), strategy="channels-16")
    >>> ig.apply(plan, net)[1].num_groups, type(net[1]).__name__
    (2, 'BatchNorm2d')
    """
    return replace_norms(plan, model, inplace=inplace, include=include, exclude=exclude).model


def replace_norms(
    plan: Plan,
    model: Model,
    *,
    inplace: bool = False,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
) -> Surgery[Model]:
    """Carry out ``plan``: batch norm and its kin become ``torch.nn.GroupNorm``, group norms get a new number of groups.

    Kept: γ and β (the same parameters), eps, dtype, device, ``requires_grad``, training flags, hooks, a layer's own
    activation, and the names of all of these in ``state_dict``. Running statistics go; the buffers γ and β of a frozen
    batch norm become parameters that need no gradient. Forward hooks stay and see the group norm's output.

    Args:
        plan: made by :func:`idealgroups.plan`, or loaded from a file.
        model: the network the plan was made for; a copy of it is converted.
        inplace: convert ``model`` itself, and return it.
        include: convert only layers whose name matches one of these patterns (as in :mod:`fnmatch`: ``"layer4.*"``).
        exclude: leave layers whose name matches one of these patterns.

    Returns:
        The converted model, what was replaced, and what was left and why.

    Raises:
        IdealGroupsError: the model is wrapped, compiled, scripted or lazy; the plan is for another network (the first
            difference is named); a pattern matches nothing. Nothing has been changed then.

    Warns:
        UserWarning: trained layers change their function; the model has layers that the plan does not know, or that
            did not run when it was made.

    >>> import torch, idealgroups as ig
    >>> net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.Flatten(), nn.Linear(1152, 8), nn.LayerNorm(8))
    >>> plan = ig.plan(net, torch.randn(2, 3, 8, 8), strategy="channels-16")
    >>> print(replace_norms(plan, net))
    replaced 1: 1 BatchNorm2d
    left 1: layer norm over the last dimension, not over channels
    """
    refuse_unsupported(model)
    work = fit(plan, model, Patterns(include, exclude))
    warn_of_lost_training(model, work.groups)
    target = model if inplace else copy_model(model)
    modules = dict(target.named_modules(remove_duplicate=False))
    replaced: dict[str, tuple[str, int]] = {}
    parameters: dict[int, nn.Parameter] = {}
    for name, groups in work.groups.items():
        norm = work.norms[name]
        replaced[name] = (norm.kind, groups)
        _become_group_norm(modules[name], norm, groups, parameters)
    return Surgery(target, replaced, work.left)


def _become_group_norm(module: nn.Module, norm: Norm, groups: int, parameters: dict[int, nn.Parameter]) -> None:
    """Turn ``module`` into a group norm; ``parameters`` remembers what a shared buffer became."""
    if isinstance(module, nn.GroupNorm):
        module.num_groups = groups
        return
    blank = GroupNormAct if norm.after else nn.GroupNorm
    state = vars(blank(groups, norm.num_channels, eps=norm.eps, affine=norm.affine, device="meta"))
    state["_parameters"] = {
        "weight": None if norm.weight is None else _as_parameter(getattr(module, norm.weight), parameters),
        "bias": None if norm.bias is None else _as_parameter(getattr(module, norm.bias), parameters),
    }
    state["_modules"] |= module._modules
    fresh = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules")
    kept = {key: value for key, value in vars(module).items() if key not in _SETTINGS and key not in fresh}
    module.__class__ = blank
    module.__dict__ = state | kept


def _as_parameter(tensor: Tensor, parameters: dict[int, nn.Parameter]) -> nn.Parameter:
    if isinstance(tensor, nn.Parameter):
        if tensor.ndim != 1:  # the parameter stays, for an optimizer may know it
            tensor.data = tensor.data.reshape(-1)
            tensor.grad = None
        return tensor
    flat = nn.Parameter(tensor.detach().reshape(-1), requires_grad=tensor.requires_grad)
    return parameters.setdefault(id(tensor), flat)
