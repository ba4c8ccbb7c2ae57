"""How long planning takes and how much memory, against one training step of the same batch, in one run.

    python -m experiments.speed run [PART]     # measures what is not measured yet; PART of a network's name
    python -m experiments.speed report         # writes the table of docs/cost.md

Time: `plan` over one forward and backward pass of the same batch, in processor time and taken in turn, so that other
work on the machine counts for little. Before that, a network of three layers is planned and trained, for code that is
first used is loaded then. The garbage collector leaves alone what was there before (`gc.freeze`): to look
through the objects of all imported libraries takes longer than a pass of a small network, and happens by chance.
Memory: as in `experiments.memory`. Networks of the zoo have the zoo's inputs.
"""

from __future__ import annotations

import gc
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from cyclopts import App
from rich.progress import track
from torch import nn

import idealgroups as ig
from experiments.common.cost import planning_cost, step_seconds
from experiments.common.jsonl import append_records, load_records
from experiments.common.markdown import replace_section, table
from experiments.memory import TASKS, Network, OwnForward, of_torchvision, peak
from idealgroups.measuring.loss import random_projection
from idealgroups.synthetic import synthetic

app = App(help=__doc__)
TIMES, MEMORY = (Path(__file__).with_name(name) for name in ("speed.jsonl", "speed-memory.jsonl"))
REPORT = Path(__file__).parents[1] / "docs" / "cost.md"
PAIRS = 3
"""Plans of a network, each between steps of its own; the median counts."""

NAMED = ("resnet18", "resnet50", "resnet101", "mobilenet_v2", "densenet121")
ZOO = (
    *(f"torchvision:{name}" for name in ("shufflenet_v2_x0_5", "mnasnet0_5", "lraspp_mobilenet_v3_large", "r3d_18")),
    *(f"timm:{name}" for name in ("resnetv2_18", "convnext_atto", "regnetx_002", "ghostnet_050", "cspresnet50")),
    *(f"timm:{name}" for name in ("repvgg_a0", "dla46x_c", "mobilevit_xxs", "vgg11_bn", "lcnet_035")),
    *(f"smp:{name}" for name in ("Unet-resnet18", "FPN-mobilenet_v2")),
    *(f"monai:{name}" for name in ("UNet-3d", "DynUNet-2d")),
    *(f"diffusers:{name}" for name in ("UNet2DModel", "AutoencoderKL")),
)
"""Twenty of the zoo, of every kind and library whose loss is the default one."""


def unet() -> tuple[nn.Module, Any]:
    """Return the U-Net of the memory table with the batch of the other named networks."""
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet34", encoder_weights=None, classes=21), synthetic((8, 3, 128, 128))


def of_zoo(key: str) -> tuple[nn.Module, Any]:
    """Return a network of the zoo with its inputs."""
    from experiments.zoo.cases import find
    from experiments.zoo.examine import build

    return build(find(key))


NETWORKS: dict[str, Network] = {
    **{name: Network(partial(of_torchvision, name, 8, 3, 128, 128), "torchvision") for name in NAMED},
    "unet (resnet34)": Network(unet, "segmentation_models_pytorch"),
    **{key: Network(partial(of_zoo, key), f"experiments.zoo.cases.{key.partition(':')[0]}_cases") for key in ZOO},
}


def measure_time(name: str) -> dict[str, Any]:
    """Return the record of how long planning a network takes."""
    network = NETWORKS[name]
    torch.manual_seed(0)
    model, inputs = network.build()
    loss = random_projection(0)
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), OwnForward(4)), synthetic((2, 3, 8, 8))
    ig.plan(*small, progress=False)
    step_seconds(*small, loss)
    gc.collect()
    gc.freeze()
    step_seconds(model, inputs, loss)
    steps = [_best(model, inputs, loss)]
    plans, passes = [], 0
    for _ in range(PAIRS):
        model.zero_grad(set_to_none=True)
        with planning_cost() as cost:
            started = time.process_time()
            ig.plan(model, inputs, progress=False)
            plans.append(time.process_time() - started)
        passes = cost.passes
        steps.append(_best(model, inputs, loss))
    del model
    ratios = [made / ((before + after) / 2) for made, before, after in zip(plans, steps, steps[1:], strict=False)]
    return {
        "network": name,
        "passes": passes,
        "seconds": round(median(steps), 3),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _best(model: nn.Module, inputs: Any, loss: Any) -> float:
    return min(step_seconds(model, inputs, loss) for _ in range(2))


def measure_memory(name: str) -> dict[str, Any]:
    """Return the record of a network's peaks: training in MiB, the others as a share of it.

    ``calibrate`` is None where nothing can be calibrated: there is no batch norm with statistics.
    """
    network = NETWORKS[name]
    training = peak("train", network)
    record: dict[str, Any] = {"network": name, "training": round(training / 2**20, 1)}
    for task in TASKS[1:]:
        try:
            record[task] = round(peak(task, network) / training, 3)
        except ig.IdealGroupsError:
            if task != "calibrate":
                raise
            record[task] = None
    return record


@app.command
def run(part: str = "", *, only: Literal["time", "memory", "both"] = "both") -> None:
    """Measure what is not measured yet, and print all ratios. Remove a file of records to measure anew.

    Args:
        part: of the names of the networks to measure.
        only: what to measure; memory may be measured beside other work, time may not.
    """
    for what, measure, file in (("time", measure_time, TIMES), ("memory", measure_memory, MEMORY)):
        if only in (what, "both"):
            done = {record["network"] for record in load_records(file)}
            todo = [name for name in NETWORKS if part in name and name not in done]
            for name in track(todo, description=f"measuring {what}"):
                append_records(file, [measure(name)])
    print(tables(load_records(TIMES), load_records(MEMORY)))


@app.command
def report() -> None:
    """Write the table."""
    replace_section(REPORT, "speed", tables(load_records(TIMES), load_records(MEMORY)))


def tables(times: list[dict[str, Any]], memory: list[dict[str, Any]]) -> str:
    """Return all ratios of the networks that have both records, and the median and the largest over networks."""
    peaks = {record["network"]: record for record in memory}
    order = {name: number for number, name in enumerate(NETWORKS)}
    records = [record | peaks[record["network"]] for record in times if record["network"] in peaks]
    records.sort(key=lambda r: order[r["network"]])
    rows = [
        (
            r["network"],
            f"{r['seconds']:.2f}",
            r["passes"],
            f"{median(r['ratios']):.1f}",
            f"{min(r['ratios']):.1f} to {max(r['ratios']):.1f}",
            f"{r['training']:.0f}",
            *("–" if r[task] is None else f"{r[task]:.2f}" for task in TASKS[1:]),
        )
        for r in records
    ]
    ratios = [median(r["ratios"]) for r in records]
    over = [r["network"] for r in records if median(r["ratios"]) > 12]
    head = (
        "network",
        "s a forward + backward",
        "passes",
        "plan / (forward + backward)",
        "range",
        "training, MiB",
        *(f"{task} / training" for task in TASKS[1:]),
    )
    lines = [
        f"{table(head, rows)}\n\nOver {len(records)} networks: {median(ratios):.1f} forward + backward passes in the "
        f"median, {max(ratios):.1f} at most, above 12 in {len(over)}{_listed(over)}. Memory:"
    ]
    for task in TASKS[1:]:
        found = {r["network"]: r[task] for r in records if r[task] is not None}
        above = [name for name, share in found.items() if share > 1.1]
        lines.append(
            f"{task} {median(found.values()):.2f} in the median, {max(found.values()):.2f} at most, "
            f"above 1.1 in {len(above)}{_listed(above)}{'.' if task == TASKS[-1] else ';'}"
        )
    return " ".join(lines)


def _listed(names: list[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


if __name__ == "__main__":
    app()
