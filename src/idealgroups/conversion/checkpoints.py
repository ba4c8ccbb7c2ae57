"""Read the weights of a checkpoint and the settings of its group norms, without running any code that is in it."""

from __future__ import annotations

import json
import os
import warnings
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import IdealGroupsError
from .travel import KEY, Settings, read_settings, settings_in

_WRAPPERS = ("module", "_orig_mod", "_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Names under which wrappers keep the network: data parallel, compiled, private, sharded, checkpointed."""

_USUAL = ("state_dict", "model_state_dict", "model", "module", "net", "network")
"""Where training scripts keep the weights of the model in a checkpoint; the first one that is there is taken."""


@dataclass(frozen=True)
class Weights:
    """``tensors`` as ``load_state_dict`` takes them; ``settings`` of the layers that the weights were trained with."""

    tensors: Mapping[str, Any]
    settings: Mapping[str, Settings]
    where: str


def read_checkpoint(checkpoint: Any) -> Weights:
    """Read a file (``torch.save`` or safetensors), a ``state_dict``, or a checkpoint that holds one.

    Raises:
        IdealGroupsError: no such file, a file that is torn, empty or of another kind, or one that could run code.
    """
    if isinstance(checkpoint, str | os.PathLike):
        return _read_file(os.fspath(checkpoint))
    return _from_mapping(checkpoint, "the checkpoint")


def align(weights: Weights, modules: Iterable[str], parameters: Collection[str]) -> Weights:
    """Rename the weights as a model with these names of modules and parameters has them.

    Wrappers around the network or its parts leave their names in those of the weights. A checkpoint of a larger module
    (a LightningModule, say) is cut down to the part that the model is.

    Raises:
        IdealGroupsError: no part of the checkpoint, or more than one, has the model's layers.

    >>> saved = Weights({"net.module.bn.weight": 0}, {"net.module.bn": Settings(2)}, "the checkpoint")
    >>> dict(align(saved, ["", "bn"], ["bn.weight"]).settings)
    {'bn': Settings(num_groups=2, eps=None)}
    """
    names = {_bare(name): name for name in (*parameters, *modules)}
    prefix = _part(weights, names, len(parameters))

    def renamed(entries: Mapping[str, Any]) -> OrderedDict[str, Any]:
        bare = {_bare(key): value for key, value in entries.items()}
        inside = {key.removeprefix(prefix): value for key, value in bare.items() if key.startswith(prefix)}
        return OrderedDict((names.get(key, key), value) for key, value in inside.items())

    tensors: Any = renamed(weights.tensors)
    metadata = getattr(weights.tensors, "_metadata", None)
    if isinstance(metadata, Mapping):  # torch's own modules keep the version of their format there
        tensors._metadata = renamed(metadata)
    return Weights(tensors, renamed(weights.settings), weights.where)


def _part(weights: Weights, names: Mapping[str, str], num_parameters: int) -> str:
    """The prefix of the part that the model is: it has the model's layers, and most of its parameters."""
    layers = [_bare(name) for name in weights.settings]
    if all(layer in names for layer in layers):
        return ""
    tensors = [_bare(name) for name in weights.tensors]
    shared = {}
    for prefix in {layer[: i + 1] for layer in layers for i, letter in enumerate(layer) if letter == "."}:
        if all(layer.removeprefix(prefix) in names for layer in layers if layer.startswith(prefix)):
            shared[prefix] = sum(t.startswith(prefix) and t.removeprefix(prefix) in names for t in tensors)
    most = max(num_parameters // 2 + 1, *shared.values(), 0)
    best = sorted(prefix for prefix, count in shared.items() if count == most)
    if len(best) > 1:
        raise IdealGroupsError(
            f"{weights.where} holds several networks that fit this model ({', '.join(best[:3])}); "
            "pass the state dict of one of them, without that prefix."
        )
    if not best:
        missing = next(layer for layer in layers if layer not in names)
        raise IdealGroupsError(f"{weights.where} is of another network: the model has no layer {missing}.")
    return best[0]


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _read_file(path: str) -> Weights:
    try:
        with Path(path).open("rb") as file:
            start = file.read(9)
    except IsADirectoryError:
        raise IdealGroupsError(f"{path} is a folder; give the file of weights in it.") from None
    except (OSError, ValueError) as error:
        raise IdealGroupsError(f"cannot read the checkpoint {path!r:.300}: {_reason(error)}.") from None
    if not start:
        raise IdealGroupsError(f"the checkpoint {path} is empty; save it again.")
    if start[8:9] == b"{" and path.endswith(".safetensors"):
        return _read_safetensors(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on old kinds of storage: nothing a reader of the file can change
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn file can raise anything
        raise IdealGroupsError(
            f"{path} cannot be read as weights ({_reason(error)}): it is torn, no checkpoint of PyTorch, or holds "
            "objects that only running its code could make; save the state_dict alone with torch.save."
        ) from None
    return _from_mapping(content, path)


def _read_safetensors(path: str) -> Weights:
    try:
        from safetensors import safe_open
    except ImportError:
        raise IdealGroupsError(f"reading {path} needs the package safetensors; install it with pip.") from None
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        data = json.loads(notes.get(KEY, "{}"))
    except Exception as error:  # SafetensorError, JSON, OSError
        raise IdealGroupsError(f"{path} cannot be read as safetensors ({_reason(error)}); save it again.") from None
    return Weights(tensors, read_settings(data, path), path)


def _from_mapping(content: Any, where: str) -> Weights:
    if not isinstance(content, Mapping):
        raise IdealGroupsError(
            f"{where} holds a {type(content).__name__}, not the weights of a network; give a path, a state_dict, or a "
            "checkpoint that holds one."
        )
    if _is_state_dict(content):
        return Weights(content, settings_in(getattr(content, "_metadata", None), where), where)
    for key in _USUAL:
        if _is_state_dict(content.get(key)):
            return _from_mapping(content[key], where)
    inside = [key for key, value in content.items() if _is_state_dict(value)]
    if len(inside) == 1:
        return _from_mapping(content[inside[0]], where)
    several = f"several ({', '.join(map(repr, inside[:4]))}); pass the one you mean" if inside else "none"
    raise IdealGroupsError(f"a state_dict is needed, a mapping of names to tensors, and {where} holds {several}.")


def _is_state_dict(value: Any) -> bool:
    """A non-empty mapping of names to tensors; ``get_extra_state`` may have put anything beside them."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(key, str) for key in value):
        return False
    return all(isinstance(item, Tensor) or key.endswith("_extra_state") for key, item in value.items())


def _reason(error: BaseException) -> str:
    text = " ".join((getattr(error, "strerror", None) or str(error)).split())
    return f"{type(error).__name__}: {text[:150]}" if text else type(error).__name__
