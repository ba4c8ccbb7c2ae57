"""Stable-Baselines3: the groups are an argument of the features extractor, which ``save`` keeps with the policy."""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

import idealgroups as ig


class GroupNormCnn(BaseFeaturesExtractor):
    """A small convolutional network with the numbers of groups ``groups``."""

    def __init__(self, space: gymnasium.spaces.Box, features_dim: int = 32, groups: Any = None) -> None:
        super().__init__(space, features_dim)
        self.net = nn.Sequential(
            nn.Conv2d(space.shape[0], 16, 3, 2, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(128, features_dim),
        )
        if groups is not None:
            ig.set_groups(self, groups)

    def forward(self, observations: Tensor) -> Tensor:
        """(N, C, H, W) to (N, features_dim)."""
        return self.net(observations)


def policy_kwargs(space: gymnasium.spaces.Box, samples: int = 32) -> dict[str, Any]:
    """What to give to PPO, DQN and the like as ``policy_kwargs``, planned on random observations."""
    observations = torch.stack([torch.as_tensor(space.sample()) for _ in range(samples)]).float() / 255
    converted, _ = ig.convert(GroupNormCnn(space), observations)
    return {
        "features_extractor_class": GroupNormCnn,
        "features_extractor_kwargs": {"groups": ig.groups(converted)},
    }
