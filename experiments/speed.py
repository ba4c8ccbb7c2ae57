"""How long planning takes and how much memory, against one training step of the same batch, in one run.

    python -m experiments.speed [--px 128] [--batch 8] [--repeats 3] [MODEL ...]

Time: `plan` over forward + backward (median of several, interleaved). Memory: peak of a fresh process that plans over
that of one that takes an SGD step with momentum, each less what it holds before the model is built.
"""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import track
from rich.table import Table

from idealgroups import plan
from idealgroups.cli.networks import load_model
from idealgroups.synthetic import synthetic

app = App(help=__doc__)
MODELS = (
    *(f"torchvision:{name}" for name in ("resnet18", "resnet50", "resnet101", "mobilenet_v2", "densenet121")),
    *(f"timm:{name}" for name in ("resnetv2_18", "convnext_atto", "regnetx_002", "ghostnet_050", "cspresnet50")),
    *(f"timm:{name}" for name in ("efficientnet_b0", "mobilenetv3_small_100", "repvgg_a0", "seresnet18", "dla34")),
)


def step(model: torch.nn.Module, x: torch.Tensor, optimizer: torch.optim.Optimizer | None = None) -> None:
    model.zero_grad(set_to_none=True)
    model(x).square().mean().backward()
    if optimizer is not None:
        optimizer.step()


def seconds(work: object) -> float:
    started = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - started


def time_ratios(spec: str, px: int, batch: int, repeats: int) -> list[float]:
    model, x = load_model(spec).model, synthetic((batch, 3, px, px))
    step(model, x)
    ratios = []
    for _ in range(repeats):
        base = min(seconds(lambda: step(model, x)) for _ in range(3))
        ratios.append(seconds(lambda: plan(model, x, progress=False)) / base)
    return ratios


def peak_bytes(what: str, spec: str, px: int, batch: int) -> int:
    """Peak resident memory of a process of its own, less its memory before the model was built."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (what, spec, px, batch))


def _peak(what: str, spec: str, px: int, batch: int) -> int:
    before = _status("VmRSS")
    model, x = load_model(spec).model, synthetic((batch, 3, px, px))
    if what == "plan":
        plan(model, x, progress=False)
    else:
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        step(model, x, optimizer)
        step(model, x, optimizer)
    return _status("VmHWM") - before


def _status(key: str) -> int:
    """Bytes, from the kernel's account of this process (getrusage would inherit the parent's peak)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


@app.default
def main(
    *models: str,
    px: Annotated[int, Parameter(help="Height and width of the images.")] = 128,
    batch: int = 8,
    repeats: int = 3,
) -> None:
    table = Table(box=None)
    for title in ("model", "time / (forward + backward)", "range", "memory / training step"):
        table.add_column(title, justify="left" if title == "model" else "right")
    for spec in track(models or MODELS, description="measuring", console=Console(stderr=True)):
        ratios = time_ratios(spec, px, batch, repeats)
        memory = peak_bytes("plan", spec, px, batch) / peak_bytes("step", spec, px, batch)
        table.add_row(spec, f"{median(ratios):.1f}", f"{min(ratios):.1f}–{max(ratios):.1f}", f"{memory:.2f}")
    Console().print(table)
    Console().print(f"{batch} images of {px} px, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    app()
