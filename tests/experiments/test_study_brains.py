"""The study's task in three dimensions: patches of a volume, split with gaps, and MONAI's networks."""

from __future__ import annotations

import builtins
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import idealgroups as ig
from experiments.study.brains import make_patches, part_boxes
from experiments.study.config import Images, Run
from experiments.study.data import Dataset, load
from experiments.study.networks import VOLUME_NETWORKS, build
from experiments.study.planned import PlanJob, plan_inputs, plan_strategies
from experiments.study.train import TrainJob, evaluate, train
from study_cases import ARM

PATCHES = Images("head-patches", 8, 12, 4, 4)
SHAPE = (20, 40, 44)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head in whose volume every voxel tells its y (twice) and whose classes tell y and z too."""
    folder = tmp_path_factory.mktemp("volumes")
    _, y, z = np.indices(SHAPE)
    classes = np.where((y > 1) & (z > 1), 1 + (y + z) % 3, 0)
    np.savez(folder / "head.npz", volume=(2 * y).astype(np.uint8), tissue=classes.astype(np.uint8))
    np.savez(folder / "poor.npz", volume=np.zeros(SHAPE, np.uint8))
    np.savez(folder / "thin.npz", volume=np.zeros((9, 9, 9), np.uint8), brain=np.ones((9, 9, 9), np.uint8))
    return folder


def test_parts_are_a_patch_apart_and_never_split_from_left_to_right() -> None:
    labels = np.zeros(SHAPE)
    labels[:, 4:36, 2:42] = 1
    boxes = part_boxes(labels, 8)
    voxels = {}
    for part, box in boxes.items():
        marked = np.zeros(SHAPE, bool)
        marked[box] = True
        assert np.array_equal(marked, marked[::-1])
        voxels[part] = np.argwhere(marked[0])
        assert len(voxels[part])
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        between = np.abs(voxels[one][:, None] - voxels[other][None]).max(-1).min()
        assert between == 8 + 1  # eight voxels lie between


def test_patches_are_cut_where_their_part_lies_with_the_classes_of_their_voxels(folder: Path) -> None:
    parts = make_patches(PATCHES, folder / "head.npz", 0)
    boxes = part_boxes(np.load(folder / "head.npz")["tissue"], 8)
    assert {part: len(x) for part, (x, _) in parts.items()} == {"val": 4, "train": 12, "test": 4}
    for part, (x, y) in parts.items():
        assert x.shape[1:] == (1, 8, 8, 8)
        at = np.round(x[:, 0] * 255 / 2).astype(int)
        assert at.min() >= boxes[part][1].start
        assert at.max() < boxes[part][1].stop
        assert np.all(y[:, 4, 4, 4] > 0)
        differences = (np.diff(y, axis=3) % 3)[y[..., :-1] * y[..., 1:] > 0]
        assert np.all(differences == 1)  # along z the class goes up by one, so the axes are where they were
    again = make_patches(PATCHES, folder / "head.npz", 0)
    assert np.array_equal(again["train"][0], parts["train"][0])
    assert np.array_equal(again["test"][1], parts["test"][1])


@pytest.fixture(scope="module")
def head(folder: Path) -> Dataset:
    return load(PATCHES, folder)


def test_patches_are_a_data_set(head: Dataset) -> None:
    assert head.x_train.shape == (12, 1, 8, 8, 8)
    assert head.y_val.shape == (4, 8, 8, 8)
    assert (head.in_channels, head.num_classes, head.size) == (1, 4, 8)
    assert head.x_train.mean().item() == pytest.approx(0, abs=1e-5)
    assert head.x_train.std().item() == pytest.approx(1, abs=1e-5)
    assert plan_inputs("data", head, seed=0).shape == (8, 1, 8, 8, 8)
    assert plan_inputs("noise", head, seed=0).shape == (8, 1, 8, 8, 8)


def test_evaluation_counts_every_voxel_once() -> None:
    right = torch.zeros(24, 1, 2, 2, 2).expand(-1, 3, -1, -1, -1).clone()
    right[:, 1] = 4
    labels = torch.ones(24, 2, 2, 2, dtype=torch.long)
    labels[:6] = 0
    loss, accuracy = evaluate(nn.Identity(), right, labels)
    assert accuracy == 0.75
    assert loss == pytest.approx(float(nn.functional.cross_entropy(right, labels)), rel=1e-6)


@pytest.mark.parametrize("name", VOLUME_NETWORKS)
def test_networks_of_monai_classify_voxels_and_have_batch_norm(name: str) -> None:
    pytest.importorskip("monai")
    network = build(name, 1, 4, 8)
    assert network(torch.randn(1, 1, 8, 8, 8)).shape == (1, 4, 8, 8, 8)
    norms = [module.num_features for module in network.modules() if isinstance(module, nn.BatchNorm3d)]
    widths = {"monai-unet": [16, 16, 32, 32, 64, 64, 16, 16, 4], "monai-segresnet": [16] * 5 + [32] * 4 + [64] * 2}
    assert sorted(norms) == sorted(widths[name])


def test_a_run_on_patches_learns_with_batches_of_one(head: Dataset) -> None:
    pytest.importorskip("monai")
    (planned,) = plan_strategies(PlanJob("monai-unet", PATCHES, 0, 1, ("channels-4",), "adamw"), head)
    assert planned.groups == (4, 4, 8, 8, 16, 16, 4, 4, 1)
    images = dataclasses.replace(ARM, network="monai-unet", images=PATCHES, optimizer="adamw", batch_size=1, epochs=2)
    run = Run(dataclasses.replace(images, flip=True), "channels-4", 0.003, 0)
    first, second = (train(TrainJob((run,), planned.plan), head) for _ in range(2))
    assert first.steps == 24
    assert first.test_loss == second.test_loss
    assert first.train_losses[1] < first.train_losses[0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (dataclasses.replace(PATCHES, size=0), "head-patches needs data.size"),
        (dataclasses.replace(PATCHES, test=0), "data.test of 1 or more"),
        (dataclasses.replace(PATCHES, name="poor-patches"), "must have a volume .* tissue or brain"),
        (dataclasses.replace(PATCHES, name="none-patches"), "cannot read"),
        (dataclasses.replace(PATCHES, name="thin-patches"), "room for 0 val patches of 8 voxels"),
        (dataclasses.replace(PATCHES, train=100_000), "train patches of 8 voxels a side, not for 100000"),
    ],
)
def test_patches_that_cannot_be_cut_are_refused_in_a_sentence(folder: Path, images: Images, message: str) -> None:
    with pytest.raises(ig.IdealGroupsError, match=message):
        load(images, folder)


def test_without_monai_its_networks_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("monai"):
            raise ImportError(name)
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ig.IdealGroupsError, match="pip install monai"):
        build("monai-unet", 1, 4, 8)
