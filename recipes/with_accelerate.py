"""accelerate: convert before ``prepare``; ``save_state`` keeps the groups where it writes no safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from accelerate import Accelerator
from torch import nn

import idealgroups as ig

Model = TypeVar("Model", bound=nn.Module)


def save(accelerator: Accelerator, folder: Path) -> None:
    """Save the state of a run; safetensors would lose the numbers of groups."""
    accelerator.save_state(str(folder), safe_serialization=False)


def restore(model: Model, folder: Path) -> Model:
    """Give a freshly built model groups and weights of the run; then ``prepare`` it and ``load_state`` the rest."""
    return ig.restore(model, folder / "pytorch_model.bin")
