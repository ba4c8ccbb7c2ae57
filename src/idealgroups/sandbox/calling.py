"""Call a model that somebody else wrote: its inputs, its errors, and no trace on the random number generators."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import IdealGroupsError
from .copying import CopyAnyTensor


def call_model(model: nn.Module, inputs: Any) -> Any:
    """The model on a tuple of positional arguments, a dict of keywords, or anything else as its one argument."""
    if isinstance(inputs, tuple):
        return model(*inputs)
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(inputs)


def copy_inputs(value: Any) -> Any:
    """Inputs of our own, in float32 where they were in half precision; the model may change them in place.

    What requires a gradient does so in the copy: a checkpoint or a model of forces may need it.
    """
    if isinstance(value, Tensor):
        own = value.detach().clone()
        own = own.float() if own.dtype in (torch.float16, torch.bfloat16) else own
        return own.requires_grad_() if value.requires_grad else own
    if isinstance(value, dict):
        return {key: copy_inputs(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(copy_inputs(item) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(copy_inputs(item) for item in value)
    try:
        with CopyAnyTensor():
            return copy.deepcopy(value)
    except Exception:  # what cannot be copied (a generator, a handle) is passed as it is
        return value


def describe(value: Any) -> str:
    """Inputs in a few words: ``8x3x224x224`` for a tensor; the parts of a tuple or dict for others."""
    if isinstance(value, Tensor):
        return "x".join(map(str, value.shape)) or "scalar"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        parts = [describe(item) for item in value]
        if len(parts) > 1 and len(set(parts)) == 1:
            return f"({len(parts)} of {parts[0]})"
        return "(" + ", ".join(parts) + ")"
    text = str(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"


def one_line(error: BaseException) -> str:
    """Class and message of ``error`` without line breaks, not too long; a bare ``assert`` has no message."""
    message = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def check_seed(seed: Any) -> None:
    """Raise unless ``seed`` is an integer that every generator takes."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise IdealGroupsError(f"seed must be an integer from 0 to 2^63 - 1, not {seed!r}.")


def _seed(seed: int, device: torch.device) -> None:
    """Seed the generators whose state is put back, and no other: ``torch.manual_seed`` seeds every device there is."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        accelerator = torch.get_device_module(device)
        with accelerator.device(device) if hasattr(accelerator, "device") else nullcontext():
            accelerator.manual_seed(seed)


@contextmanager
def sandbox(seed: int, device: torch.device) -> Iterator[None]:
    """Gradients on, autocast off, random numbers from ``seed``; every random state is put back."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 — the model may draw from it
    with ExitStack() as stack:
        accelerators = [] if device.type == "cpu" else [device]
        stack.enter_context(torch.random.fork_rng(accelerators, device_type=device.type if accelerators else "cuda"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", device.type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        _seed(seed, device)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
