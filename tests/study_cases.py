"""Studies and results small enough to check by hand."""

from __future__ import annotations

import math
from typing import Any

from experiments.study.config import Arm, Data, Images, Optimizer, Run, Study
from experiments.study.store import Result

TINY = Study(
    name="tiny",
    networks=("mlp3",),
    strategies=("fixed-32", "gcd-32", "layer", "batch"),
    seeds=(0,),
    final_seeds=(0, 1),
    epochs=1,
    batch_size=32,
    data=Data(train=320, validation=100, test=100),
    sgd=Optimizer((0.01, 0.1)),
)
"""Eight tuning runs, of which six are trained: fixed-32 and gcd-32 both mean 32 groups of 256 channels."""

ARM = Arm("plain9", Images("digits", 0, 100, 50, 0), "sgd", 0.0, 32, 1, False)


def record(
    strategy: str,
    learning_rate: float,
    seed: int,
    val_loss: float,
    test_loss: float | None = None,
    arm: Arm = ARM,
    groups: tuple[int, ...] | None = (4, 8),
    steps: int = 100,
) -> dict[str, Any]:
    """A line of the store with made-up losses; infinite means diverged."""
    run = Run(arm, strategy, learning_rate, seed)
    diverged = not math.isfinite(val_loss)
    plan = {"groups": groups, "step_seconds": 0.1, "seconds": 2.0, "channels": None if groups is None else [32, 64]}
    return {
        "hash": run.hash,
        "run": run.to_dict(),
        "plan": plan,
        "trained_as": run.hash,
        "val_losses": [val_loss],
        "diverged": diverged,
        "val_loss": None if diverged else val_loss,
        "test_loss": None if diverged else (val_loss if test_loss is None else test_loss),
        "test_accuracy": None if diverged else 0.5,
        "steps": steps,
        "seconds": 3.6,
        "machine": {"device": "abacus", "torch": "2"},
    }


def result(*arguments: Any, **options: Any) -> Result:
    """:func:`record`, read."""
    return Result.from_record(record(*arguments, **options))
