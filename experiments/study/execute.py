"""A whole study: plan, train the tuning grid, choose the rates, train the final runs; resumable at every line."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from torch import Tensor

from idealgroups.errors import IdealGroupsError

from .config import Images, Run, Study
from .data import Dataset, load
from .detector import STRIDE
from .engines import Engine
from .federated import FEDERATED
from .grid import arms, final_runs, tuning_runs
from .planned import PlanJob, Planned, initial_network, plan_strategies
from .private import is_private
from .store import Store
from .train import TrainJob, train

Progress = Callable[[str, int], Callable[[], None]]
"""(what, how many) → a function to call as each is done."""


@dataclass(frozen=True)
class Summary:
    """What a call of :func:`run_study` did.

    ``trained`` runs were trained, ``shared`` ones have the groups of another and took its result; ``failures`` has a
    sentence for each strategy that could not be planned.
    """

    trained: int
    shared: int
    failures: tuple[str, ...]


def run_study(
    study: Study, store: Store, engine: Engine, progress: Progress = lambda what, total: lambda: None
) -> Summary:
    """Do what is missing of ``study`` in ``store``.

    Runs that have the same groups are trained once and stored under the name of each strategy that asked for them.
    """
    check(study)
    with engine:
        tuned = _complete(tuning_runs(study), store, engine, _named(progress, "tuning runs"))
        final = _complete(final_runs(study, store.results()), store, engine, _named(progress, "final runs"))
    return Summary(
        trained=tuned.trained + final.trained,
        shared=tuned.shared + final.shared,
        failures=tuple(dict.fromkeys(tuned.failures + final.failures)),
    )


def _named(progress: Progress, what: str) -> Progress:
    return lambda step, total: progress(f"{what}: {step}", total)


def check(study: Study) -> None:
    """Meet what can go wrong before anything is computed: missing data, unknown networks, shapes that do not fit.

    Raises:
        IdealGroupsError: the first of them.
    """
    for arm in arms(study):
        dataset = load(arm.images, study.data.folder, study.data.download)
        if dataset.y_val.is_floating_point() and is_private(arm.optimizer):
            raise IdealGroupsError(f"{arm.images.name} cannot be trained with DP-SGD; use sgd or adamw.")
        if (arm.optimizer == FEDERATED) != (dataset.client is not None):
            raise IdealGroupsError(f"{arm.images.name} does not go with {arm.optimizer}; use fedavg with NAME-clients.")
        network = initial_network(arm.network, dataset, seed=0).eval()
        try:
            outputs = network(dataset.x_val[:2])
        except RuntimeError as error:
            raise IdealGroupsError(
                f"{arm.network} does not take images of {dataset.size} px ({error}); "
                "set data.size to a multiple of 4, 16 or more."
            ) from None
        if outputs.shape != _wanted_shape(dataset, outputs):
            raise IdealGroupsError(
                f"{arm.network} has outputs {tuple(outputs.shape[1:])} for one image, which do not fit "
                f"{arm.images.name}; use unet with NAME-scenes, diffusion-unet with NAME-noise, fcos with NAME-boxes, "
                "and the other networks with plain data sets."
            )


def _wanted_shape(dataset: Dataset, outputs: Tensor) -> tuple[int, ...]:
    """What the outputs for two validation images must be, with as many classes as there are."""
    if dataset.has_boxes:
        return (2, (dataset.size // STRIDE) ** 2, 6)
    y = dataset.y_val[:2]
    return tuple(y.shape) if dataset.predicts_noise else (*outputs.shape[:2], *y.shape[1:])


def _complete(runs: Sequence[Run], store: Store, engine: Engine, progress: Progress) -> Summary:
    """Plan and train the runs that are not in the store."""
    results = store.results()
    done = {result.run for result in results}
    missing = [run for run in runs if run not in done]
    planned, failures = _plan(missing, engine, progress)
    trained = {result.training: result.record for result in results}
    waiting: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    shared = 0
    for run in missing:
        if run not in planned:
            continue
        training = (run.arm, run.learning_rate, run.seed, planned[run].groups)
        if training in trained:
            record = trained[training]
            store.append([{**record, **_identity(run, planned[run], record["trained_as"])}])
            shared += 1
        else:
            waiting[training].append(run)
    jobs = in_order([TrainJob(tuple(group), planned[group[0]].plan) for group in waiting.values()])
    advance = progress("training", len(jobs))
    for job, outcome in engine.map(train, jobs):
        first = job.runs[0].hash
        store.append({**_identity(run, planned[run], first), **asdict(outcome)} for run in job.runs)
        shared += len(job.runs) - 1
        advance()
    return Summary(trained=len(jobs), shared=shared, failures=failures)


def in_order(jobs: Sequence[TrainJob]) -> list[TrainJob]:
    """Seed by seed, so that a study that is stopped can compare what it has.

    Within a seed, slow and fast ones are mixed: the time left is told well.
    """
    mixed = random.Random(0).sample(jobs, len(jobs))
    return sorted(mixed, key=lambda job: min(run.seed for run in job.runs))


def _plan(runs: Sequence[Run], engine: Engine, progress: Progress) -> tuple[dict[Run, Planned], tuple[str, ...]]:
    """The plan of every run that has one, and a sentence for each that has not."""
    groups: dict[tuple[str, Images, int, int, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.arm.network, run.arm.images, run.seed, run.arm.batch_size, run.arm.optimizer].append(run)
    jobs = [
        PlanJob(network, images, seed, batch_size, tuple(dict.fromkeys(run.strategy for run in group)), optimizer)
        for (network, images, seed, batch_size, optimizer), group in groups.items()
    ]
    advance = progress("planning", len(jobs))
    planned: dict[Run, Planned] = {}
    failures = []
    for job, plans in engine.map(plan_strategies, jobs):
        by_strategy = {one.strategy: one for one in plans}
        for run in groups[job.network, job.images, job.seed, job.batch_size, job.optimizer]:
            one = by_strategy[run.strategy]
            if one.error:
                failures.append(f"{job.network} on {job.images.name}, {run.strategy}: {one.error}")
            else:
                planned[run] = one
        advance()
    return planned, tuple(dict.fromkeys(failures))


def _identity(run: Run, planned: Planned, trained_as: str) -> dict[str, Any]:
    """The part of a run's line that is its own even where the training is shared."""
    return {
        "hash": run.hash,
        "run": run.to_dict(),
        "plan": planned.summary(),
        "trained_as": trained_as,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
