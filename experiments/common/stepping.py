"""One training step as a function of a batch: as written, or on a GPU recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Step = Callable[[Any, Any], Tensor]
"""(inputs, targets) → the loss before the update, detached."""

LossOf = Callable[[nn.Module, Any, Any], Tensor]

EAGER_STEPS = 3
"""Steps as written before one is recorded: the optimizer has its state by then, and the libraries their plans."""


def eager_step(network: nn.Module, loss_of: LossOf, optimizer: torch.optim.Optimizer) -> Step:
    """Forward, backward, update."""

    def step(x: Any, y: Any) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(network, x, y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


class RecordedStep:
    """The same step as one CUDA graph: a small network's training waits for the processor less.

    Batches must have one shape, the network must stay in its mode and the learning rate must be a tensor where it
    changes. The first ``EAGER_STEPS`` steps are made as written.
    """

    def __init__(self, network: nn.Module, loss_of: LossOf, optimizer: torch.optim.Optimizer) -> None:
        self._written = eager_step(network, loss_of, optimizer)
        self._made = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Make one step; the loss is overwritten by the next one, so add it up or copy it."""
        if self._made < EAGER_STEPS:
            self._made += 1
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                loss = self._written(x, y)
            torch.cuda.current_stream().wait_stream(self._stream)
            return loss
        if self._graph is None:
            self._x, self._y = x.clone(), y.clone()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._loss = self._written(self._x, self._y)
        self._x.copy_(x)
        self._y.copy_(y)
        self._graph.replay()
        return self._loss


def fast_step(network: nn.Module, loss_of: LossOf, optimizer: torch.optim.Optimizer) -> Step:
    """A recorded step where the network is on a GPU, else one as written."""
    on_gpu = next(network.parameters()).is_cuda
    return (RecordedStep if on_gpu else eager_step)(network, loss_of, optimizer)
