"""How much memory planning and converting take, against a training step with the same batch.

    python -m experiments.memory [NETWORK ...]

Each number is the peak resident memory of a fresh process, less what it held before the network was built: the median
of three processes, and of twelve in a small network, where two of them may differ by a tenth. Before the network is
built, the process converts, calibrates and trains a network of four layers, for code that is first used is loaded then.
The training is seven steps of SGD with momentum; the network keeps its normalization. ``plan`` and ``convert`` start
from the network without gradients or optimizer, as people do. ``calibrate`` converts a network whose batch norms hold
statistics, so that γ and β are fitted to it. Needs Linux (the kernel's account of a process), torchvision and
segmentation-models-pytorch.
"""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from cyclopts import App
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.measuring.loss import random_projection
from idealgroups.sandbox.calling import call_model, copy_inputs
from idealgroups.synthetic import synthetic

app = App(help=__doc__)

TASKS = ("train", "plan", "convert", "calibrate")

PROCESSES, MORE, SMALL = 3, 9, 32 * 2**20
"""Of how many fresh processes a peak is the median, and of how many more where it is small, in bytes: their peaks
differ by up to 3 MiB, by where the allocator leaves free memory between tensors."""

STEPS = 7
"""How many steps the training takes: about as many as a plan takes passes, for the free memory between tensors that the
allocator keeps grows with the first steps. A U-Net of the table takes 348 MiB after two steps and 362 after seven."""


@dataclass(frozen=True)
class Network:
    """What to measure. ``build``: → a network and its inputs. ``imports``: what ``build`` imports, no part of its cost.

    Picklable, for it is built in another process.
    """

    build: Callable[[], tuple[nn.Module, Any]]
    imports: str = "torch"


def of_torchvision(name: str, *shape: int) -> tuple[nn.Module, Any]:
    """Return an image classifier of torchvision and images of ``shape``."""
    import torchvision

    return torchvision.models.get_model(name, weights=None), synthetic(shape)


def unet(*shape: int) -> tuple[nn.Module, Any]:
    """Return a U-Net for segmentation and images of ``shape``."""
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet34", encoder_weights=None, classes=21), synthetic(shape)


def mlp(*shape: int) -> tuple[nn.Module, Any]:
    """Return weights only, next to no activations."""
    layers = [m for _ in range(4) for m in (nn.Linear(3072, 3072), nn.BatchNorm1d(3072), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(3072, 10)), synthetic(shape)


SMP = "segmentation_models_pytorch"
CASES: dict[str, Network] = {
    "resnet50, 8 images of 64 px": Network(partial(of_torchvision, "resnet50", 8, 3, 64, 64), "torchvision"),
    "resnet50, 8 images of 128 px": Network(partial(of_torchvision, "resnet50", 8, 3, 128, 128), "torchvision"),
    "mobilenet_v2, 8 images of 128 px": Network(partial(of_torchvision, "mobilenet_v2", 8, 3, 128, 128), "torchvision"),
    "unet (resnet34), 8 images of 64 px": Network(partial(unet, 8, 3, 64, 64), SMP),
    "unet (resnet34), 4 images of 128 px": Network(partial(unet, 4, 3, 128, 128), SMP),
    "mlp, 32 images of 32 px": Network(partial(mlp, 32, 3, 32, 32)),
}


class OwnForward(nn.BatchNorm2d):
    """A norm that is tried before it is planned, as those of timm are."""

    def forward(self, x: Tensor) -> Tensor:
        """Batch norm and ReLU."""
        return F.relu(super().forward(x))


def peak(task: str, network: Network) -> int:
    """Bytes at the peak of ``task`` above what its process held before the network was built.

    The median of fresh processes, some side by side.
    """
    job = task, network
    with multiprocessing.get_context("spawn").Pool(PROCESSES, maxtasksperchild=1) as pool:
        peaks = pool.starmap(_peak, [job] * PROCESSES, chunksize=1)
        if median(peaks) < SMALL:
            peaks += pool.starmap(_peak, [job] * MORE, chunksize=1)
    return int(median(peaks))


def _peak(task: str, network: Network) -> int:
    torch.set_num_threads(1)
    _warm_up()
    importlib.import_module(network.imports)
    before = status("VmRSS")
    model, inputs = network.build()
    if task == "train":
        _train(model, inputs)
    elif task == "plan":
        ig.plan(model, inputs, progress=False)
    else:
        ig.convert(model, inputs, calibrate=task == "calibrate", progress=False)
    return status("VmHWM") - before


def _warm_up() -> None:
    """Load the code that all tasks use."""
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), OwnForward(4)
    small = nn.Sequential(*layers), synthetic((2, 3, 8, 8))
    for calibrate in (False, True):
        ig.convert(*small, calibrate=calibrate, progress=False)
    _train(*small)


def _train(model: nn.Module, inputs: Any) -> None:
    loss = random_projection(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(call_model(model, copy_inputs(inputs))).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def status(key: str) -> int:
    """Return bytes by the kernel's account of this process: VmRSS now, VmHWM at most."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


@app.default
def main(*networks: str) -> None:
    """Print the table; NETWORK is a part of a name in it."""
    head = "".join(f"{task:>10}" for task in ("weights", *TASKS, *(f"/ {TASKS[0]}" for _ in TASKS[1:])))
    print(f"{'network and batch':36}{head}")
    for name, network in CASES.items():
        if networks and not any(part in name for part in networks):
            continue
        weights = sum(p.numel() * p.element_size() for p in network.build()[0].parameters()) / 2**20
        train, *others = (peak(task, network) / 2**20 for task in TASKS)
        sizes = "".join(f"{size:10.0f}" for size in (weights, train, *others))
        print(f"{name:36}{sizes}" + "".join(f"{other / train:10.2f}" for other in others), flush=True)


if __name__ == "__main__":
    app()
