"""Say in one sentence what is wrong with the example inputs, if it is they that made the model raise."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..errors import IdealGroupsError, one_line
from ..sandbox.calling import describe
from ..sandbox.tree import tensors, tree_map
from .trace import Running

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = {nn.BatchNorm2d: 4, nn.BatchNorm3d: 5}


def refuse_empty_inputs(inputs: Any) -> None:
    """Raise where no gradient can get past the inputs.

    Raises:
        IdealGroupsError: a tensor has no elements, or all floating-point tensors hold zeros and no tensor of integers
            with two or more axes (token numbers) holds anything else.
    """
    found = list(tensors(inputs))
    if found and all(tensor.numel() == 0 for tensor in found):
        raise IdealGroupsError(f"the example inputs {describe(inputs)} are empty; pass at least one sample.")
    real = [tensor for tensor in found if tensor.is_floating_point() or tensor.is_complex()]
    tokens = [tensor for tensor in found if not (tensor.is_floating_point() or tensor.is_complex()) and tensor.ndim > 1]
    if real and not any(_has_values(tensor) for tensor in (*real, *tokens)):
        raise IdealGroupsError(
            "the example inputs are all zeros, so no gradient reaches the weights; pass real data or random noise."
        )


def value_range(inputs: Any) -> str:
    """Describe how large the floating-point inputs are.

    >>> value_range((torch.tensor([1.0, -3.0]), torch.tensor(7)))
    'absolute values up to 3'
    """
    largest = [float(t.abs().max()) for t in tensors(inputs) if t.is_floating_point() and t.numel()]
    return f"absolute values up to {max(largest):.3g}" if largest else "no floating-point numbers"


def what_the_model_raised(error: Exception, model: nn.Module, inputs: Any, reached: Running | None) -> str:
    """Return the sentence on an exception of the model's forward, with the layer that it had reached."""
    for advice in _mistakes(error, model, inputs, reached):
        return advice
    return (
        f"the model raised {one_line(error)}{_in(reached, model)} — on inputs {describe(inputs)}; "
        f"give example inputs as the model takes them ({_how(error, inputs)})."
    )


def _mistakes(error: Exception, model: nn.Module, inputs: Any, reached: Running | None) -> Iterator[str]:
    """Yield a sentence for each known mistake that the exception shows."""
    if isinstance(inputs, DataLoader | Dataset):
        yield (
            f"the example inputs are a {type(inputs).__name__}; take one batch, next(iter(DataLoader(dataset, "
            "batch_size=8))), and give what the model takes of it, without labels, such as batch[0] or batch['image']."
        )
    if isinstance(error, TypeError) and (reached is None or reached.module is model):
        yield from _wrong_arguments(model, inputs)
    yield from _numpy_arrays(error, inputs)
    if model.training and "targets" in str(error) and not (isinstance(inputs, tuple) and len(inputs) > 1):
        yield (
            f"the model raised {one_line(error)}; give a tuple of both, (inputs, targets), as it takes them in "
            "train() mode."
        )
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], Tensor):
        yield (
            f"the example inputs are a list, passed as one argument, and the model raised {one_line(error)}; "
            "if it is a batch with labels, pass the samples alone, inputs[0]; several arguments need a tuple."
        )
    if reached is None or not (reached.args and isinstance(x := reached.args[0], Tensor)):
        return
    given = _given(x, inputs)
    name = _name(reached, model)
    module = reached.module
    if isinstance(module, _CONVOLUTIONS):
        axes = len(module.kernel_size) + 2
        if x.ndim == axes and x.shape[1] != module.in_channels:
            yield (
                f"{name} takes {_count(module.in_channels, 'channel')} but {given} of shape {describe(x)} have "
                f"{x.shape[1]}; {_advice(given, x, module.in_channels)}."
            )
        elif x.ndim not in (axes, axes - 1):
            more = given == "the example inputs" and x.ndim == axes + 1
            hint = "; is the batch there twice? On the command line --input is one sample" if more else ""
            yield f"{name} takes inputs of {axes} axes, (N, C, …), but {given} {describe(x)} have {x.ndim}{hint}."
    needed = next((axes for norm, axes in _BATCH_NORMS.items() if isinstance(module, norm)), None)
    if needed is not None and x.ndim == needed - 1:
        yield (
            f"{name} takes inputs of {needed} axes, (N, C, …), but {given} of shape {describe(x)} have {x.ndim}; "
            "if the batch axis is missing, add it with .unsqueeze(0)."
        )
    if isinstance(module, nn.Linear) and x.ndim and x.shape[-1] != module.in_features:
        yield (
            f"{name} takes {module.in_features} features but {given} of shape {describe(x)} have {x.shape[-1]}; "
            "example inputs of another size (height and width, or length) may be needed."
        )
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return
    if x.device != weight.device:
        yield f"{given} are on {x.device} and {name} is on {weight.device}; move them with .to({str(weight.device)!r})."
    elif x.dtype != weight.dtype:
        yield (
            f"{given} are {_type(x)} and {name} computes in {_type(weight)}; convert them with "
            f".to(torch.{_type(weight)})" + (" / 255 if they are images." if x.dtype is torch.uint8 else ".")
        )


def _numpy_arrays(error: Exception, inputs: Any) -> Iterator[str]:
    """The example inputs hold something that a tensor can be made of."""
    found: list[Any] = []
    tree_map(found.append, inputs)
    for array in (leaf for leaf in found if isinstance(leaf, np.ndarray)):
        shape = "x".join(map(str, array.shape)) or "scalar"
        yield (
            f"the example inputs hold a NumPy array ({shape}, {array.dtype}), and the model raised {one_line(error)}; "
            "if it takes tensors, make one with torch.from_numpy(array).float()."
        )


def _wrong_arguments(model: nn.Module, inputs: Any) -> Iterator[str]:
    """The arguments of the call do not fit the signature of ``forward``."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):
        return
    positional, keywords = ((), dict(inputs)) if isinstance(inputs, Mapping) else (_as_tuple(inputs), {})
    try:
        signature.bind(*positional, **keywords)
    except TypeError as mismatch:
        parameters = ", ".join(signature.parameters) or "nothing"
        takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        unknown = [key for key in keywords if key not in signature.parameters and not takes_any]
        reason = f"there is no argument {unknown[0]}" if unknown else str(mismatch)
        problem = (
            f"forward of {type(model).__name__} takes ({parameters}), and the example inputs do not fit ({reason})"
        )
        most = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if isinstance(inputs, Mapping):
            yield (
                f"{problem}; a dict is passed as keywords, so of a loader's batch give what the model takes, as in "
                f"batch[{next(iter(inputs), 'image')!r}], and put one argument that is a dict in a tuple, (inputs,)."
            )
        elif isinstance(inputs, tuple) and len(inputs) > len(most):
            yield (
                f"{problem}; a tuple is passed as positional arguments, so if it is a batch with labels, pass the "
                "samples alone, inputs[0]."
            )
        else:
            yield f"{problem}; pass a tuple for positional arguments or a dict for keywords."


def _as_tuple(inputs: Any) -> tuple[Any, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def _given(x: Tensor, inputs: Any) -> str:
    """What arrives at a layer: the example inputs themselves if they have the same shape."""
    return "the example inputs" if any(t.shape == x.shape for t in tensors(inputs)) else "its inputs"


def _advice(given: str, x: Tensor, channels: int) -> str:
    if x.shape[-1] == channels:
        return "the channels seem to come last, so move them with .movedim(-1, 1)"
    if given == "the example inputs":
        return "pass inputs with as many channels, or build the model for these"
    return "the model does not fit together for these example inputs"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _name(at: Running, model: nn.Module) -> str:
    kind = type(at.module).__name__
    return f"{at.name} ({kind})" if at.name else f"the model ({kind})"


def _in(reached: Running | None, model: nn.Module) -> str:
    return "" if reached is None or reached.module is model else f" in {_name(reached, model)}"


def _type(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _how(error: Exception, inputs: Any) -> str:
    if isinstance(inputs, Mapping) and isinstance(error, TypeError):
        return "a dict is passed as keywords; a model that takes one dict needs it in a tuple, (inputs,)"
    how = "a tensor, a tuple or a dict"
    if isinstance(inputs, tuple) and len(inputs) > 1:
        how = "a tuple is passed as positional arguments; one argument that holds several tensors is ([x, y],)"
    if isinstance(inputs, Tensor) and isinstance(error, TypeError):
        how += "; on the command line let a factory return (model, example_inputs)"
    return how


def _has_values(x: Tensor) -> bool:
    values = x.coalesce().values() if x.layout is torch.sparse_coo else x
    return bool(values.any())
