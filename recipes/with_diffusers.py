"""diffusers: the groups are an entry of the model's ``config``, which ``save_pretrained`` writes and reads."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from diffusers import ModelMixin

import idealgroups as ig

Unet = TypeVar("Unet", bound=ModelMixin)


def convert(unet: Unet, example_inputs: dict[str, object]) -> Unet:
    """Convert ``unet`` and put its groups into its config, from where EMA copies take them as well."""
    unet, _ = ig.convert(unet, example_inputs)
    unet.register_to_config(groups=ig.groups(unet))
    return unet


def from_pretrained(kind: type[Unet], folder: Path) -> Unet:
    """Load what ``save_pretrained`` wrote, of a model or of its ``EMAModel``."""
    unet = kind.from_pretrained(folder)
    return ig.set_groups(unet, unet.config["groups"])
