from __future__ import annotations

import dataclasses

import pytest

from experiments.study.analysis import Regret, analyse, compare, ranks, regrets
from experiments.study.choice import best_rates, rate_curve, sweep_winner
from experiments.study.config import SWEEP_MEMBERS, Optimizer
from experiments.study.grid import arms, final_runs
from experiments.study.tables import ablations, by_network
from study_cases import ARM, TINY, result

INF = float("inf")
STUDY = dataclasses.replace(TINY, strategies=("layer", "sweep"), final_seeds=(0, 1, 2), sgd=Optimizer((0.01, 0.1)))


def test_the_best_rate_has_the_lowest_mean_validation_loss_over_the_tuning_seeds() -> None:
    losses = {(0.01, 0): 1.0, (0.01, 1): 3.0, (0.1, 0): 1.8, (0.1, 1): 1.8, (1.0, 0): 0.1, (1.0, 1): INF}
    results = [result("layer", rate, seed, loss, test_loss=9.0) for (rate, seed), loss in losses.items()]
    assert rate_curve(results) == {0.01: 2.0, 0.1: 1.8, 1.0: INF}
    assert best_rates(results)[ARM, "layer"].learning_rate == 0.1


def test_seeds_trained_after_the_choice_do_not_change_it() -> None:
    results = [result("layer", 0.01, 0, 1.0), result("layer", 0.1, 0, 2.0), result("layer", 0.01, 1, 50.0)]
    assert rate_curve(results) == {0.01: 1.0, 0.1: 2.0}


def test_a_strategy_that_always_diverges_has_no_best_rate() -> None:
    assert best_rates([result("layer", 0.1, 0, INF)]) == {}


def test_the_sweep_is_won_on_validation_data_and_only_when_all_have_run() -> None:
    results = [result(name, 0.1, 0, val_loss=2.0 - 0.1 * i, test_loss=float(i)) for i, name in enumerate(SWEEP_MEMBERS)]
    assert sweep_winner(results) == SWEEP_MEMBERS[-1]
    assert sweep_winner(results[1:]) is None


def test_final_runs_are_the_best_rates_of_named_strategies_and_of_the_winner() -> None:
    (arm,) = arms(STUDY)
    results = [
        result(name, rate, 0, (1.0 if name == "channels-8" else 2.0) + (rate == 0.01), arm=arm)
        for name in SWEEP_MEMBERS
        for rate in (0.01, 0.1)
    ]
    runs = final_runs(STUDY, results)
    more = dataclasses.replace(STUDY, tested=("layer",), tested_seeds=(2, 3))
    assert {run.seed for run in final_runs(more, results) if run.strategy == "layer"} == {0, 1, 2, 3}
    assert {run.seed for run in final_runs(more, results) if run.strategy == "channels-8"} == {0, 1, 2}
    expected = {(name, 0.1, seed) for name in ("layer", "channels-8") for seed in (0, 1, 2)}
    assert {(run.strategy, run.learning_rate, run.seed) for run in runs} == expected


def test_a_row_of_the_report_by_hand() -> None:
    results = [
        result("layer", 0.01, 0, 1.04),
        result("layer", 0.1, 0, 1.0, test_loss=3.0),
        result("layer", 1.0, 0, INF),
        result("layer", 0.1, 1, 1.0, test_loss=5.0),
        result("isometric", 0.1, 0, 0.5, test_loss=2.0),
    ]
    rows = analyse(results)[ARM]
    layer = rows["layer"]
    assert layer.learning_rate == 0.1
    assert layer.test_loss == {0: 3.0, 1: 5.0}
    assert layer.test_error == {0: 0.5, 1: 0.5}
    assert layer.decades == pytest.approx(1.0)  # 0.01 is within 5%, diverging 1.0 adds nothing
    assert layer.common_decades == 0.0  # nothing of it is within 5% of 0.5
    assert not layer.on_edge
    assert layer.group_size == (8, 8)
    assert layer.choice_steps == 0
    assert rows["isometric"].choice_steps == pytest.approx(20)  # 2 s of planning, 0.1 s a step


def test_the_sweep_costs_every_distinct_training_behind_its_choice() -> None:
    results = [
        result(name, rate, seed, 1.0 + i, groups=(1 if i < 2 else i, 1), steps=100)
        for i, name in enumerate(SWEEP_MEMBERS)
        for rate in (0.01, 0.1)
        for seed in (0, 1)
    ]
    sweep = analyse(results)[ARM]["sweep"]
    assert sweep.note == "= instance"
    assert sweep.choice_steps == 6 * 2 * 100  # seven members, two of them the same; two rates; for one seed


def test_comparisons_are_paired_by_seed() -> None:
    ours = {0: 1.0, 1: 2.0, 2: 3.0}
    theirs = {0: 1.5, 1: 2.5, 2: 3.5, 3: 0.0}
    results = [result("isometric", 0.1, s, 1.0, test_loss=v) for s, v in ours.items()]
    results += [result("fixed-32", 0.1, s, 1.0, test_loss=v) for s, v in theirs.items()]
    (one,) = compare(analyse(results), "isometric", "fixed-32")
    assert one.seeds == 3
    assert one.difference.mean == one.difference.low == one.difference.high == -0.5
    assert one.p == 0.25  # 2 of 8 sign patterns
    assert one.verdict == "–"


def test_ten_seeds_that_agree_are_significant_and_divergence_counts_against() -> None:
    results = [result("isometric", 0.1, seed, 1.0, test_loss=1.0 + 0.01 * seed) for seed in range(10)]
    results += [result("fixed-32", 0.1, seed, 1.0, test_loss=1.2 + 0.02 * seed) for seed in range(9)]
    results += [result("fixed-32", rate, seed, 2.0) for rate in (0.01, 1.0) for seed in range(3)]
    results += [result("fixed-32", 0.1, 9, INF)]
    (one,) = compare(analyse(results), "isometric", "fixed-32")
    assert one.seeds == 10
    assert one.p == pytest.approx(2 / 1024)
    assert one.verdict == "better"


def test_p_values_are_corrected_within_an_optimizer_and_batch_size() -> None:
    others = [dataclasses.replace(ARM, network="mlp3"), dataclasses.replace(ARM, optimizer="adamw")]
    results = [
        result(name, 0.1, seed, 1.0, test_loss=loss, arm=arm)
        for arm in (ARM, *others)
        for name, loss in (("isometric", 1.0), ("fixed-32", 1.5))
        for seed in range(6)
    ]
    found = {one.arm: one for one in compare(analyse(results), "isometric", "fixed-32")}
    assert [found[arm].p for arm in (ARM, *others)] == [2 / 64] * 3
    assert [found[arm].adjusted_p for arm in (ARM, *others)] == [4 / 64, 4 / 64, 2 / 64]


def test_ranks_are_means_over_arms_of_ranks_by_mean_test_loss() -> None:
    other = dataclasses.replace(ARM, network="mlp3")
    results = [
        result("isometric", 0.1, 0, 1.0, test_loss=1.0),
        result("layer", 0.1, 0, 1.0, test_loss=2.0),
        result("sqrt", 0.1, 0, 1.0, test_loss=2.0),
        result("isometric", 0.1, 0, 1.0, test_loss=3.0, arm=other),
        result("layer", 0.1, 0, 1.0, test_loss=1.0, arm=other),
        result("sqrt", 0.1, 0, 1.0, test_loss=2.0, arm=other),
    ]
    assert ranks(analyse(results)) == {"layer": 1.75, "isometric": 2.0, "sqrt": 2.25}


def test_regret_is_the_share_above_the_best_of_each_arm() -> None:
    other = dataclasses.replace(ARM, network="mlp3")
    losses = {(ARM, "isometric"): 1.0, (ARM, "layer"): 2.0, (other, "isometric"): 2.5, (other, "layer"): 2.0}
    results = [result(name, 0.1, 0, loss, arm=arm) for (arm, name), loss in losses.items()]
    found = regrets(analyse(results))
    assert list(found) == ["isometric", "layer"]  # the least worst case first
    assert found == {"isometric": Regret(0.125, 0.25, other), "layer": Regret(0.5, 1.0, ARM)}
    runs = [result("layer", rate, 0, 1.0) for rate in (0.01, 0.1)] + [result("layer", 0.01, 1, INF)]
    runs += [result("isometric", 0.1, seed, 1.0) for seed in (0, 1)]
    assert regrets(analyse(runs))["layer"] == Regret(INF, INF, ARM)  # a seed of the final comparison diverged
    assert regrets({}) == {}


def test_an_ablation_is_compared_with_the_strategy_it_changes() -> None:
    losses = {"isometric": (1.0, 2.0), "isometric@delta=1": (1.5, 2.25), "fixed-32": (9.0, 9.0)}
    results = [result(name, 0.1, seed, loss) for name, pair in losses.items() for seed, loss in enumerate(pair)]
    (row,) = ablations(analyse(results)).rows
    assert row[:2] == ("isometric@delta=1", str(ARM))
    assert "+0.3750" in row  # the mean of 0.5 and 0.25
    assert ablations(analyse(results[:2])).rows == ()


def test_ranks_by_network() -> None:
    other = dataclasses.replace(ARM, network="mlp3")
    losses = {(ARM, "isometric"): 1.0, (ARM, "fixed-32"): 2.0, (other, "isometric"): 2.0, (other, "fixed-32"): 1.0}
    table = by_network(analyse([result(name, 0.1, 0, loss, arm=arm) for (arm, name), loss in losses.items()]))
    assert table.header == ("strategy", "mlp3 (1)", "plain9 (1)")
    assert table.rows == (("isometric", "2.0", "**1.0**"), ("fixed-32", "**1.0**", "2.0"))
