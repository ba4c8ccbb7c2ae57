"""From a study to its runs: every learning rate with the tuning seeds, then the best rates with the final ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from .choice import best_rates, sweep_winner
from .config import SWEEP, SWEEP_MEMBERS, Arm, Images, Optimizer, Run, Study
from .federated import FEDERATED
from .private import optimizer_name
from .store import Result


def arms(study: Study) -> list[Arm]:
    """Networks × data sets × optimizers."""
    data = study.data
    images = [Images(name, data.size, data.train, data.validation, data.test) for name in data.names]
    return [
        Arm(network, one, name, optimizer.weight_decay, study.batch_size, study.epochs, study.flip)
        for network in study.networks
        for one in images
        for name, optimizer in _optimizers(study).items()
    ]


def tuning_arm(arm: Arm, study: Study) -> Arm:
    """The arm whose runs choose the rates of ``arm``: itself, unless these are chosen in shorter trainings."""
    return replace(arm, epochs=study.tuning_epochs or study.epochs)


def trained_strategies(strategies: Iterable[str]) -> list[str]:
    """Each strategy once, ``sweep`` replaced by the uniform choices it is the best of.

    >>> trained_strategies(["layer", "sweep"])
    ['layer', 'instance', 'channels-2', 'channels-4', 'channels-8', 'channels-16', 'channels-32']
    """
    names = [member for name in strategies for member in (SWEEP_MEMBERS if name == SWEEP else (name,))]
    return list(dict.fromkeys(names))


def tuning_runs(study: Study) -> list[Run]:
    """Every strategy at every learning rate with every tuning seed."""
    return [
        Run(tuning_arm(arm, study), strategy, rate, seed)
        for arm in arms(study)
        for strategy in trained_strategies(study.strategies)
        for rate in _optimizers(study)[arm.optimizer].learning_rates
        for seed in study.seeds
    ]


def final_runs(study: Study, results: Sequence[Result]) -> list[Run]:
    """Each strategy's best rate with the final seeds; of a sweep's members, those asked for by name and the winner.

    ``results`` hold the tuning runs. A strategy that diverged at every rate has no best rate, and no final runs.
    """
    tuning = set(tuning_runs(study))
    chosen = best_rates([result for result in results if result.run in tuning])
    runs = []
    for arm in arms(study):
        short = tuning_arm(arm, study)
        rates = {strategy: rate for (one, strategy), rate in chosen.items() if one == short}
        names = [name for name in study.strategies if name != SWEEP]
        if SWEEP in study.strategies:
            winner = sweep_winner([result for result in results if result.run in tuning and result.run.arm == short])
            names += [winner] if winner else []
        runs += [
            Run(arm, name, rates[name].learning_rate, seed)
            for name in dict.fromkeys(names)
            if name in rates
            for seed in dict.fromkeys(study.final_seeds + (study.tested_seeds if name in study.tested else ()))
        ]
    return runs


def _optimizers(study: Study) -> dict[str, Optimizer]:
    private = optimizer_name(study.dp_sgd.epsilon)
    named = {"sgd": study.sgd, "adamw": study.adamw, private: study.dp_sgd, FEDERATED: study.fedavg}
    return {name: optimizer for name, optimizer in named.items() if optimizer.learning_rates}
