"""Seed every random number generator, and put all of them back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from ..errors import IdealGroupsError


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
