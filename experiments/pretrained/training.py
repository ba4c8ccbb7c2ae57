"""Train, fine-tune and count: plain loops that every arm shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn

from experiments.common.stepping import Step, eager_step
from experiments.common.training import train_epoch

from .data import Split, Task
from .networks import Case, build


def pretrained(name: str, case: Case, seed: int, task: Task, folder: Path) -> nn.Module:
    """The batch-norm network of this name and seed in evaluation mode: read from ``folder``, or trained and kept."""
    path = folder / f"{name}-{seed}.pt"
    model = build(case, seed).to(task.base.x.device)
    if path.is_file():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    if task.base.x.ndim == 4:
        model = model.to(memory_format=torch.channels_last)  # faster on processors
    steps = case.epochs * (len(task.base) // case.batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=case.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, case.rate, steps, pct_start=0.2)
    train(model, batches(task.base, case.batch, steps, seed, task.flips), optimizer, schedule, total=steps)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(model.state_dict(), partial)
    partial.replace(path)
    return model.eval()


def batches(split: Split, size: int, steps: int, seed: int, flips: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """``steps`` random batches, epoch after epoch; images are mirrored and shifted by a pixel where ``flips``."""
    draw = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < size:
            order = torch.cat([order, torch.randperm(len(split), generator=draw)])
        rows, order = order[:size], order[size:]
        x, y = split.x[rows], split.y[rows]
        if flips:
            mirrored = torch.rand(len(x), generator=draw) < 0.5
            x = torch.where(mirrored[:, None, None, None].to(x.device), x.flip(-1), x)
            dy, dx = (int(torch.randint(0, 3, (), generator=draw)) for _ in range(2))
            height, width = x.shape[-2:]
            x = F.pad(x, (1, 1, 1, 1), mode="reflect")[..., dy : dy + height, dx : dx + width]
        yield x, y


def train(
    model: nn.Module,
    data: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    *,
    total: int,
    step: Step | None = None,
) -> None:
    """Train on cross-entropy; without ``schedule`` at a constant rate."""
    schedule = schedule or torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    train_epoch(model, track(data, "training", total=total, transient=True), cross_entropy, optimizer, schedule, step)


def train_frozen(
    model: nn.Module,
    data: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    step: Step | None = None,
) -> None:
    """In evaluation mode, so that batch norm uses its running statistics; γ and β learn on."""
    model.eval()
    step = step or eager_step(model, cross_entropy, optimizer)
    for x, y in data:
        step(x, y)


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The loss of every training here."""
    return F.cross_entropy(model(x), y)


@torch.no_grad()
def score(model: nn.Module, split: Split, num_classes: int) -> float:
    """Per cent: of right classes, or for classes of pixels the mean intersection over union."""
    model.eval()
    found = torch.cat([model(x).argmax(1) for x in split.x.split(250)])  # type: ignore[no-untyped-call]
    if split.y.ndim == 1:
        return 100 * float((found == split.y).float().mean())
    shares = []
    for k in range(num_classes):
        ours, theirs = found == k, split.y == k
        shares.append(float((ours & theirs).sum()) / max(int((ours | theirs).sum()), 1))
    return 100 * sum(shares) / num_classes
