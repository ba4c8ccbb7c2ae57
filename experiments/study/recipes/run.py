"""Train and test one recipe."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch

from ..machine import describe_machine
from .classification import classify
from .detection import detect
from .training import Recipe


def run_recipe(recipe: Recipe) -> dict[str, Any]:
    """Train and test; returns a JSON-ready record with the plan, the losses and ``result`` (metric → value).

    Raises:
        IdealGroupsError: the data or torchvision are not there.
    """
    started = time.perf_counter()
    torch.manual_seed(recipe.seed)
    result, history, plan = detect(recipe) if recipe.dataset == "coco" else classify(recipe)
    return {
        "recipe": dataclasses.asdict(recipe),
        "plan": None if plan is None else plan.to_dict(),
        "train_losses": history.train_losses,
        "steps": history.steps,
        "result": result,
        "seconds": time.perf_counter() - started,
        "machine": describe_machine(),
    }
