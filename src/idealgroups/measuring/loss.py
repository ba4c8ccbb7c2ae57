"""The default loss: a fixed random projection of whatever the model returns, so that no labels are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import IdealGroupsError
from ..sandbox.tree import tensors

Loss = Callable[[Any], Tensor]
"""Takes the model's output, returns a scalar."""


def random_projection(seed: int, index: int = 0) -> Loss:
    """Return a loss Σ ⟨output, r⟩ / √numel over all floating outputs, with r standard normal and fixed by ``seed``.

    Each output thus sends back a gradient of the same norm. A 0-dimensional output is a loss already and is added as it
    is. Losses of one seed and another ``index`` are independent of each other.

    >>> loss = random_projection(0)
    >>> x = torch.ones(2, 3, requires_grad=True)
    >>> bool(loss({"a": x, "b": [x * 2]}) == loss((x, x * 2)))
    True
    """

    number = seed if index == 0 else int(np.random.SeedSequence([seed, index]).generate_state(1)[0])

    def loss(output: Any) -> Tensor:
        generator = torch.Generator().manual_seed(number)
        total: Tensor | None = None
        for tensor in tensors(output):
            if tensor.is_complex():
                tensor = torch.view_as_real(tensor)
            if not tensor.is_floating_point() or not tensor.requires_grad or tensor.numel() == 0:
                continue
            if tensor.ndim == 0:
                part = tensor
            else:
                r = torch.randn(tensor.shape, generator=generator, device="cpu").to(tensor)
                part = (tensor * r).sum() / tensor.numel() ** 0.5
            total = part if total is None else total + part
        if total is None:
            raise IdealGroupsError(
                "nothing the model returned depends on its weights, so there is no gradient to measure; pass loss=, a "
                "function from the model's output to one number, or put the model in train() mode."
            )
        return total

    return loss
