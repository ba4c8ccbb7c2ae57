"""How much memory planning and converting take, against a training step with the same batch.

    python -m experiments.memory [NETWORK ...]

Each number is the peak resident memory of a fresh process, less what it held before the network was built. The training
is two steps of SGD with momentum; the network keeps its normalization. ``plan`` and ``convert`` start from the network
without gradients or optimizer, as people do. ``calibrate`` converts a network whose batch norms hold statistics, so that
γ and β are fitted to it. Needs Linux (the kernel's account of a process), torchvision and
segmentation-models-pytorch.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch
from cyclopts import App
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.synthetic import synthetic

app = App(help=__doc__)

TASKS = ("train", "plan", "convert", "calibrate")


def resnet50() -> nn.Module:
    import torchvision

    model: nn.Module = torchvision.models.resnet50()
    return model


def mobilenet_v2() -> nn.Module:
    import torchvision

    model: nn.Module = torchvision.models.mobilenet_v2()
    return model


def unet() -> nn.Module:
    import segmentation_models_pytorch as smp

    model: nn.Module = smp.Unet("resnet34", encoder_weights=None, classes=21)
    return model


def mlp() -> nn.Module:
    """Weights only: next to no activations."""
    layers = [m for _ in range(4) for m in (nn.Linear(3072, 3072), nn.BatchNorm1d(3072), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(3072, 10))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet50, 8 images of 64 px": (resnet50, (8, 3, 64, 64)),
    "resnet50, 8 images of 128 px": (resnet50, (8, 3, 128, 128)),
    "mobilenet_v2, 8 images of 128 px": (mobilenet_v2, (8, 3, 128, 128)),
    "unet (resnet34), 8 images of 64 px": (unet, (8, 3, 64, 64)),
    "unet (resnet34), 4 images of 128 px": (unet, (4, 3, 128, 128)),
    "mlp, 32 images of 32 px": (mlp, (32, 3, 32, 32)),
}


def peak(task: str, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> int:
    """Bytes at the peak of ``task`` in a process of its own, above what it held before the network was built."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (task, build, shape))


def _peak(task: str, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> int:
    torch.set_num_threads(1)
    _train(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), synthetic((2, 3, 8, 8)))  # what torch loads when used
    before = status("VmRSS")
    model, x = build(), synthetic(shape)
    if task == "train":
        _train(model, x)
    elif task == "plan":
        ig.plan(model, x, progress=False)
    else:
        ig.convert(model, x, calibrate=task == "calibrate", progress=False)
    return status("VmHWM") - before


def _train(model: nn.Module, x: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def status(key: str) -> int:
    """Return bytes by the kernel's account of this process: VmRSS now, VmHWM at most."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


@app.default
def main(*networks: str) -> None:
    """Print the table; NETWORK is a part of a name in it."""
    print(
        f"{'network and batch':36} {'weights':>8} {'train':>8} {'plan':>8} {'convert':>8} {'calibrate':>9}   plan/train convert/train calibrate/train"
    )
    for name, (build, shape) in CASES.items():
        if networks and not any(part in name for part in networks):
            continue
        weights = sum(p.numel() * p.element_size() for p in build().parameters()) / 2**20
        train, plan, convert, calibrate = (peak(task, build, shape) / 2**20 for task in TASKS)
        print(
            f"{name:36} {weights:8.0f} {train:8.0f} {plan:8.0f} {convert:8.0f} {calibrate:9.0f}   "
            f"{plan / train:10.2f} {convert / train:13.2f} {calibrate / train:15.2f}",
            flush=True,
        )


if __name__ == "__main__":
    app()
