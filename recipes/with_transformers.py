"""Hugging Face transformers: the groups are an entry of the ``config``, and the model applies them when it is built.

``from_pretrained``, ``Trainer`` and the resuming of a run all build the model from its config.
"""

from __future__ import annotations

from torch import Tensor
from transformers import ResNetConfig, ResNetForImageClassification

import idealgroups as ig


class GroupNormResNetForImageClassification(ResNetForImageClassification):
    """A ResNet whose config may hold ``groups``. The end of the class's name tells transformers the loss."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config)
        if getattr(config, "groups", None):
            ig.set_groups(self, config.groups)


def convert(config: ResNetConfig, images: Tensor) -> GroupNormResNetForImageClassification:
    """Build the model of ``config`` with planned groups; ``images`` are an example batch of shape (N, C, H, W)."""
    model, _ = ig.convert(GroupNormResNetForImageClassification(config), {"pixel_values": images})
    model.config.groups = ig.groups(model)
    return model
