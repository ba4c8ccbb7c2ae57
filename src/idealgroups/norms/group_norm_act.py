"""The one layer of our own: group norm with the drop and activation that timm keeps inside its norm layers."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class GroupNormAct(nn.GroupNorm):
    """Group norm, then the children ``drop`` and ``act``: what becomes of timm's norm-plus-activation layers.

    Shape: (N, C, …) to the same.

    >>> import torch
    >>> layer = GroupNormAct(2, 4, act=nn.ReLU())
    >>> list(layer.state_dict()), bool((layer(torch.randn(3, 4, 8)) >= 0).all())
    (['weight', 'bias'], True)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        *,
        drop: nn.Module | None = None,
        act: nn.Module | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(num_groups, num_channels, **settings)
        self.drop = nn.Identity() if drop is None else drop
        self.act = nn.Identity() if act is None else act

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name for it
        """Normalize, scale and shift, drop, activate."""
        # Not super().forward, which TorchScript does not know.
        x = F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
        return self.act(self.drop(x))  # type: ignore[no-any-return]
