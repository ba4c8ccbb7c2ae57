"""What a case of the zoo is, and the list of all of them."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from idealgroups.measuring.loss import Loss

LIBRARIES = ("torchvision", "timm", "diffusers", "monai", "smp", "transformers")


@dataclass(frozen=True)
class Case:
    """A network with random weights and what it takes. ``build`` imports, constructs and returns (model, inputs)."""

    library: str
    name: str
    task: str
    build: Callable[[], tuple[nn.Module, Any]]
    loss: Loss | None = None

    @property
    def key(self) -> str:
        return f"{self.library}:{self.name}"


def cases(libraries: tuple[str, ...] = LIBRARIES, only: str = "*") -> Iterator[Case]:
    """Every case of ``libraries`` whose key matches ``only``; a library that is not installed raises ImportError."""
    for library in libraries:
        module = importlib.import_module(f"experiments.zoo.cases.{library}_cases")
        yield from (case for case in module.cases() if fnmatch.fnmatch(case.key, only))


def find(key: str) -> Case:
    (case,) = (case for case in cases((key.partition(":")[0],)) if case.key == key)
    return case
