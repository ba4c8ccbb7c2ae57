"""Numbers of groups travel with the weights, in the metadata that every ``state_dict`` has.

A number of groups is no tensor, so a ``state_dict`` does not hold it: weights load without a word into other groups and
the network computes something else. Each converted layer, and the model it is in, therefore writes its settings into
``state_dict()._metadata``, and compares them when weights are loaded. ``torch.save`` and
``torch.load(weights_only=True)`` keep the metadata. It adds no key, and code without this library loads the file as
before.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from ..errors import IdealGroupsError

KEY = "idealgroups"
"""The name of our entry in the metadata of a module."""


@dataclass(frozen=True)
class Settings:
    """What the weights of one group norm were trained with and no tensor tells. ``eps`` is None where it is unknown."""

    num_groups: int
    eps: float | None = None

    def differs(self, other: Settings) -> bool:
        """Whether weights trained with ``other`` compute something else here."""
        return self.num_groups != other.num_groups or (None not in (self.eps, other.eps) and self.eps != other.eps)

    def __str__(self) -> str:
        return f"{self.num_groups} groups" + ("" if self.eps is None else f" and eps {self.eps:g}")


def carry(model: nn.Module, names: Iterable[str]) -> list[RemovableHandle]:
    """Let the group norms ``names`` of ``model``, and the model as a whole, write and check their settings.

    Returns:
        The hooks, so that they can be removed.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8))
    >>> handles = carry(net, ["1"])
    >>> net.state_dict()._metadata["1"]
    {'version': 1, 'idealgroups': {'': {'num_groups': 2, 'eps': 1e-05}}}
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    handles = []
    for module in (*(modules[name] for name in names), model):
        if not _carries(module):
            handles.append(module.register_state_dict_post_hook(_write))
            handles.append(module.register_load_state_dict_pre_hook(_check))
    return handles


def carried(model: nn.Module) -> dict[str, Settings]:
    """The settings of the layers that carry them, by name."""
    return {
        name: Settings(int(module.num_groups), float(module.eps))
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.GroupNorm) and _carries(module)
    }


def groups(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return the settings that a converted model's weights need, as plain data for a configuration file.

    They are in the model's ``state_dict`` as well. Use this where weights are saved without its metadata: in the
    ``metadata`` of a safetensors file, or in the ``config`` of a Hugging Face or diffusers model.

    Returns:
        ``{layer: {"num_groups": int, "eps": float}}``, empty for a model that was not converted.

    >>> import torch, idealgroups as ig
    >>> net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU())
    >>> ig.groups(ig.convert(net, torch.randn(2, 3, 8, 8), strategy="group-size-16")[0])
    {'1': {'num_groups': 2, 'eps': 1e-05}}
    """
    return {name: asdict(settings) for name, settings in carried(model).items()}


def norms_of(model: nn.Module) -> OrderedDict[str, Any]:
    """The part of the ``state_dict`` that belongs to the layers that carry their settings, with these settings."""
    layers = groups(model)
    state = model.state_dict()
    part: Any = OrderedDict((key, tensor) for key, tensor in state.items() if key.rpartition(".")[0] in layers)
    part._metadata = {"": {KEY: layers}}
    return part  # type: ignore[no-any-return]


def settings_in(metadata: Any, where: str) -> dict[str, Settings]:
    """The settings in the metadata of a ``state_dict``, by the full name of the layer.

    Raises:
        IdealGroupsError: our entry in the metadata is not what this module writes; ``where`` names its file.
    """
    found: dict[str, Settings] = {}
    if not isinstance(metadata, Mapping):
        return found
    for place, local in metadata.items():
        if isinstance(local, Mapping) and KEY in local:
            for name, settings in read_settings(local[KEY], where).items():
                found[".".join(part for part in (place, name) if part)] = settings
    return found


def read_settings(data: Any, where: str) -> dict[str, Settings]:
    """Plain data, as :func:`groups` returns it or with a mere number of groups for each layer, as settings.

    >>> read_settings({"bn": 4}, "config.json")
    {'bn': Settings(num_groups=4, eps=None)}
    """
    if not isinstance(data, Mapping):
        hint = "; give its num_groups, or use apply" if hasattr(data, "num_groups") else ""
        raise IdealGroupsError(
            f"{where} does not hold {{layer: number of groups}} but an object of class {type(data).__name__}{hint}."
        )
    found = {}
    for name, item in data.items():
        item = item if isinstance(item, Mapping) else {"num_groups": item}
        number, eps = item.get("num_groups"), item.get("eps")
        if not isinstance(name, str) or not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise IdealGroupsError(f"{where} gives the layer {name!r:.80} {number!r:.80} groups; a count is needed.")
        if eps is not None and (not isinstance(eps, float | int) or not 0 <= eps < math.inf):
            raise IdealGroupsError(f"{where} gives the layer {name!r:.80} the eps {eps!r:.80}; a number is needed.")
        found[name] = Settings(number, None if eps is None else float(eps))
    return found


def _write(module: nn.Module, state_dict: Any, prefix: str, local_metadata: dict[str, Any]) -> None:
    """Hook of ``state_dict``: put the settings of this module and of those in it into its metadata."""
    local_metadata[KEY] = groups(module)


def _check(module: nn.Module, state_dict: Any, prefix: str, local_metadata: Any, *_: Any) -> None:
    """Hook of ``load_state_dict``: refuse weights of other groups before any of them is loaded."""
    theirs = settings_in({prefix[:-1]: local_metadata}, "the checkpoint")
    theirs |= settings_in(getattr(state_dict, "_metadata", None), "the checkpoint")
    for name, mine in carried(module).items():
        full = prefix + name if name else prefix[:-1]
        if full in theirs and mine.differs(theirs[full]):
            raise IdealGroupsError(
                f"these weights belong to other groups: {full or 'the layer'} has {theirs[full]} in the checkpoint and "
                f"{mine} in the model; load them with idealgroups.restore(model, checkpoint), which sets the groups."
            )


def _carries(module: nn.Module) -> bool:
    return _write in module._state_dict_hooks.values()
