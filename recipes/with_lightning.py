"""Lightning: plan before the optimizer is made, and give a loaded module the groups of its checkpoint."""

from __future__ import annotations

from typing import Any

import lightning
from torch import nn

import idealgroups as ig


class GroupNormMixin(lightning.LightningModule):
    """For a LightningModule whose network is ``self.net`` and whose ``example_input_array`` is a batch of it.

    Lightning calls ``setup`` before ``configure_optimizers``, and ``on_load_checkpoint`` before it loads the weights.
    """

    net: nn.Module

    def setup(self, stage: str) -> None:
        """Convert the network where it is about to be trained."""
        if stage == "fit" and not ig.groups(self.net):
            ig.convert(self.net, self.example_input_array, inplace=True)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the groups of the checkpoint, also where ``setup`` has planned others."""
        ig.restore(self.net, checkpoint)
