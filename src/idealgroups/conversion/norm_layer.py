"""Build a network with the planned numbers of groups from the start, instead of converting a finished one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import IdealGroupsError, one_line
from ..norms.group_norm_act import GroupNormAct
from ..records import Planned, Site
from .matching import check_plan
from .travel import carry

NormLayer = Callable[..., nn.GroupNorm]
"""``norm_layer(num_channels)``, as torchvision and timm call it; their keywords for batch norm are understood."""


def norm_layer(
    plan: Planned,
    build: Callable[..., nn.Module],
    *,
    act_layer: Callable[..., nn.Module] | None = None,
    eps: float = 1e-5,
) -> NormLayer:
    """A ``norm_layer`` argument with which ``build`` makes the network that the plan describes.

    A layer does not know its own name while it is built, and networks do not build their layers in the order in which
    they register or run them. So ``build`` is called once on trial, to see which call makes which layer; the random
    number generators of torch stay as they are. The factory serves one further call of ``build`` and checks each layer.

    Args:
        plan: for this network, with batch norm or any other norm.
        build: called as ``build(norm_layer=...)``; returns the network.
        act_layer: for timm's networks with norm-plus-activation layers, the activation that follows.
        eps: of all layers; networks that pass ``eps`` themselves have their own, and so has a calibrated plan.

    Raises:
        IdealGroupsError: ``plan`` is no plan, ``build`` is a network, the plan is for another network, or some layers
            are not made with ``norm_layer``. The factory raises it too, at the first layer that differs from the trial.

    >>> def build(norm_layer):
    ...     return nn.Sequential(nn.Conv2d(3, 8, 3), norm_layer(8), nn.ReLU())
    >>> import idealgroups as ig
    >>> plan = ig.plan(build(nn.BatchNorm2d), torch.randn(4, 3, 8, 8), strategy="fixed-2")
    >>> build(norm_layer=norm_layer(plan, build))[1].num_groups
    2
    """
    check_plan(plan)
    if isinstance(build, nn.Module):
        raise IdealGroupsError(
            "build is a network, not the function that builds it; give that function, or convert the network with "
            "idealgroups.apply."
        )
    style = _Style(act_layer, eps)
    order = _trial(plan, build, style)
    calls = iter(enumerate(order, start=1))

    def planned(num_channels: int, **settings: Any) -> nn.GroupNorm:
        number, site = next(calls, (0, None))
        if site is None:
            raise IdealGroupsError(
                f"norm_layer is called more than the {len(order)} times of one network; "
                "make a norm_layer for each network that you build."
            )
        if num_channels != site.num_channels:
            raise IdealGroupsError(
                f"call {number} of norm_layer should make {site.name} with {site.num_channels} channels, but asks for "
                f"{num_channels}: give norm_layer the same function that builds the network."
            )
        if site.eps is not None:
            settings["eps"] = site.eps
        layer = style.make(site.num_groups, num_channels, **settings)
        carry(layer, [""])
        return layer

    return planned


@dataclass(frozen=True)
class _Style:
    """Makes the layers; understands the keywords of batch norm and of timm's norm-plus-activation layers."""

    act_layer: Callable[..., nn.Module] | None
    eps: float

    def make(
        self,
        num_groups: int,
        num_channels: int,
        *,
        eps: float | None = None,
        affine: bool = True,
        apply_act: bool = True,
        act_layer: Callable[..., nn.Module] | None = None,
        act_kwargs: Mapping[str, Any] | None = None,
        drop_layer: Callable[[], nn.Module] | None = None,
        device: Any = None,
        dtype: Any = None,
        **of_batch_norm: Any,  # momentum, track_running_stats, inplace
    ) -> nn.GroupNorm:
        eps = self.eps if eps is None else eps
        settings: dict[str, Any] = {"eps": eps, "affine": affine, "device": device, "dtype": dtype}
        act_layer = act_layer or self.act_layer
        if act_layer is None and drop_layer is None:
            return nn.GroupNorm(num_groups, num_channels, **settings)
        act = act_layer(**(act_kwargs or {})) if act_layer and apply_act else None
        drop = drop_layer() if drop_layer else None
        return GroupNormAct(num_groups, num_channels, drop=drop, act=act, **settings)


def _trial(plan: Planned, build: Callable[..., nn.Module], style: _Style) -> list[Site]:
    """The plan's sites in the order in which ``build`` asks for their layers."""
    made: list[nn.GroupNorm] = []

    def record(num_channels: int, **settings: Any) -> nn.GroupNorm:
        made.append(style.make(1, num_channels, **settings))
        return made[-1]

    cuda_in_use: Callable[[], bool] = torch.cuda.is_initialized  # not annotated in torch
    devices = [torch.cuda.current_device()] if cuda_in_use() else []
    with torch.random.fork_rng(devices):
        try:
            model = build(norm_layer=record)
        except IdealGroupsError:
            raise
        except Exception as error:
            raise IdealGroupsError(
                f"build(norm_layer=…) raised {one_line(error)}; "
                "give a function that takes norm_layer and returns the network."
            ) from error
    if not isinstance(model, nn.Module):
        raise IdealGroupsError(f"build(norm_layer=…) returned a {type(model).__name__}, not a torch.nn.Module.")
    modules = dict(model.named_modules(remove_duplicate=False))
    built = {id(layer) for layer in made}
    sites = {}
    for site in plan.sites:
        module = modules.get(site.name)
        if module is None:
            raise IdealGroupsError(f"this plan is for another network: what build makes has no {site.name}.")
        if id(module) not in built:
            raise IdealGroupsError(
                f"build makes {site.name} (a {type(module).__name__}) without calling norm_layer; "
                "build the network as usual and convert it with idealgroups.apply."
            )
        if isinstance(module, nn.GroupNorm) and module.num_channels != site.num_channels:
            raise IdealGroupsError(
                f"this plan is for another network: {site.name} has {site.num_channels} channels there and "
                f"{module.num_channels} in what build makes."
            )
        if "Act" in site.kind and not hasattr(module, "act"):
            raise IdealGroupsError(
                f"{site.name} is a {site.kind}, a norm with an activation in it; name the activation with act_layer=."
            )
        sites[id(module)] = site
    names = {id(module): name for name, module in modules.items()}
    order = []
    for layer in made:
        if id(layer) not in sites and id(layer) in names:
            raise IdealGroupsError(
                f"the plan has no number for {names[id(layer)]}, which build makes with norm_layer; "
                "build the network as usual and convert it with idealgroups.apply."
            )
        unused = Site(
            name="a layer that is thrown away",
            kind="",
            num_channels=layer.num_channels,
            positions=0,
            ideal=1,
            num_groups=1,
            gain=0,
        )
        order.append(sites.get(id(layer), unused))
    return order
