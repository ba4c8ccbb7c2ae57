from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from cyclopts import CycloptsError

import idealgroups as ig
from experiments.study.cli import study_app
from experiments.study.config import Data, Optimizer, Run, Study
from experiments.study.grid import arms, tuning_runs
from study_cases import ARM, TINY


def parse(*tokens: str) -> Study:
    _, bound, _ = study_app.parse_args(["run", *tokens], exit_on_error=False, print_error=False)
    study = bound.arguments.get("study", Study())
    assert isinstance(study, Study)
    return study


def test_a_study_is_read_from_toml_and_the_command_line_wins(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        'name = "mine"\nnetworks = ["plain9", "unet"]\nseeds = [3, 4]\nflip = true\n'
        '[data]\nnames = ["cifar10"]\nsize = 16\n[adamw]\nlearning_rates = [0.001, 0.01]\nweight_decay = 0.05\n'
    )
    study = parse(str(file), "--data.size", "12", "--sgd.learning-rates", "0.5", "--seeds", "7")
    assert study == Study(
        name="mine",
        networks=("plain9", "unet"),
        seeds=(7,),
        flip=True,
        data=Data(names=("cifar10",), size=12),
        sgd=Optimizer((0.5,)),
        adamw=Optimizer((0.001, 0.01), weight_decay=0.05),
    )


def test_without_a_file_the_default_is_run() -> None:
    assert parse() == Study()


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        ("epoch = 3", "epoch", "--epochs"),
        ("[data]\nsizes = 3", "sizes", "--data.size"),
        ("[sdg]\nweight_decay = 1", "sdg", "--sgd"),
    ],
)
def test_a_wrong_key_is_named_with_the_nearest_right_one(tmp_path: Path, text: str, wrong: str, right: str) -> None:
    file = tmp_path / "study.toml"
    file.write_text(text)
    with pytest.raises(CycloptsError) as caught:
        parse(str(file))
    assert wrong in str(caught.value)
    assert f"Did you mean {right}" in str(caught.value)


@pytest.mark.parametrize("text", ["epochs = [", "epochs = 'many'"])
def test_a_broken_file_is_an_error_of_the_command_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "study.toml"
    file.write_text(text)
    with pytest.raises(CycloptsError):
        parse(str(file))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(CycloptsError, match=r"no study file nowhere\.toml"):
        parse("nowhere.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategies": ("isometrik",)}, "did you mean isometric"),
        ({"strategies": ("isometric@blue",)}, "data, pink, noise or"),
        ({"strategies": ("isometric@delta=small",)}, "'small' is none"),
        ({"strategies": ("fixed-32@delta=1",)}, "cannot plan 'fixed-32@delta=1'"),
        ({"seeds": ()}, "no seeds"),
        ({"sgd": Optimizer()}, "no learning rates"),
        ({"sgd": Optimizer((0.1, -0.1))}, "positive"),
        ({"epochs": 0}, "epochs"),
        ({"data": Data(validation=0)}, "validation"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(change: dict[str, object], message: str) -> None:
    with pytest.raises(ig.IdealGroupsError, match=message):
        dataclasses.replace(Study(), **change)


def test_a_run_survives_json_and_its_hash_changes_with_everything_that_matters() -> None:
    run = Run(ARM, "isometric", 0.1, 3)
    assert Run.from_dict(run.to_dict()) == run
    others = [
        dataclasses.replace(run, seed=4),
        dataclasses.replace(run, learning_rate=0.2),
        dataclasses.replace(run, strategy="layer"),
        dataclasses.replace(run, arm=dataclasses.replace(ARM, epochs=2)),
        dataclasses.replace(run, arm=dataclasses.replace(ARM, images=dataclasses.replace(ARM.images, size=12))),
    ]
    assert len({run.hash, *(other.hash for other in others)}) == 6


def test_the_hash_is_the_same_in_every_process_and_version() -> None:
    # A stored result is found by this number: a change of it repeats every run, so raise SCHEMA if that is meant.
    assert Run(ARM, "isometric", 0.1, 3).hash == "6c001e137ccbee33"


def test_the_grid_is_the_product_of_everything() -> None:
    study = dataclasses.replace(
        TINY, networks=("mlp3", "mlp8"), seeds=(0, 1, 2), adamw=Optimizer((0.001,)), strategies=("layer", "sweep")
    )
    assert len(arms(study)) == 4
    # 7 uniform choices, layer among them; 3 seeds; 2 networks; 2 rates of SGD and 1 of AdamW
    assert len(tuning_runs(study)) == len(set(tuning_runs(study))) == 7 * 3 * 2 * 3
