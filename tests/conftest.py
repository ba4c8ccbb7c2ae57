"""Fixtures all tests share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import nn

# The same examples every time, however slow the machine: a failure is a failure of the code.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest test first: it mostly waits, and the others run meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_global_hook_stays() -> Iterator[None]:
    yield
    left = {name for name, hooks in vars(nn.modules.module).items() if name.startswith("_global_") and hooks}
    assert left <= {"_global_is_full_backward_hook"}


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Everything about a model and the random states that planning must leave as it was, bit for bit."""
    hooks = [key for key in vars(nn.Module()) if "hooks" in key]
    return {
        "state": {k: (v.dtype, v._version, v.clone()) for k, v in model.state_dict(keep_vars=True).items()},
        "grad": {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()},
        "requires_grad": {n: p.requires_grad for n, p in model.named_parameters()},
        "training": {n: m.training for n, m in model.named_modules()},
        "modules": {n: (id(m), m.__dict__.get("forward")) for n, m in model.named_modules()},
        "hooks": {
            (n, h): len(getattr(m, h)) for n, m in model.named_modules() for h in hooks if getattr(m, h) is not None
        },
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),  # noqa: NPY002
        "python": random.getstate(),
        "grad_enabled": torch.is_grad_enabled(),
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.fixture
def untouched() -> Callable[[nn.Module, Callable[[], Any]], Any]:
    """untouched(model, call): run ``call`` and assert that nothing about ``model`` or the random states changed."""

    def check(model: nn.Module, call: Callable[[], Any]) -> Any:
        before = fingerprint(model)
        try:
            return call()
        finally:
            after = fingerprint(model)
            assert [key for key in before if not same(before[key], after[key])] == []

    return check


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="write the golden tables anew")
