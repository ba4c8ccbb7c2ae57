"""Stages and places, by hand for the names of known networks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idealgroups.pictures.stages import places, stages

NAMES = st.lists(st.lists(st.sampled_from(["a", "b", "0", "1"]), min_size=1, max_size=4).map(".".join), max_size=40)


def resnet(blocks: tuple[int, ...]) -> tuple[list[str], list[str]]:
    weights, norms = ["conv1"], ["bn1"]
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            for layer in (1, 2):
                weights.append(f"layer{stage}.{block}.conv{layer}")
                norms.append(f"layer{stage}.{block}.bn{layer}")
            if stage > 1 and block == 0:
                weights.append(f"layer{stage}.0.downsample.0")
                norms.append(f"layer{stage}.0.downsample.1")
    return [*weights, "fc"], norms


def test_the_stages_of_a_resnet_are_its_layers() -> None:
    weights, _ = resnet((2, 2, 2, 2))
    assert [(one.name, len(one)) for one in stages(weights)] == [
        ("conv1", 1),
        ("layer1", 4),
        ("layer2", 5),
        ("layer3", 5),
        ("layer4", 5),
        ("fc", 1),
    ]
    assert [one.name for one in stages(resnet((3, 4, 23, 3))[0])[1:4]] == ["layer1", "layer2", "layer3"]


def test_a_list_of_blocks_is_split_into_its_blocks() -> None:
    names = [*(f"features.{i}.conv.{j}" for i in range(19) for j in range(3)), "classifier.1"]
    assert [one.name for one in stages(names)] == [*(f"features.{i}" for i in range(19)), "classifier"]


def test_a_wrapper_is_no_stage() -> None:
    assert [one.name for one in stages(["net.body.a", "net.body.b", "net.body.c"])] == [
        "net.body.a",
        "net.body.b",
        "net.body.c",
    ]


@given(NAMES)
def test_stages_cover_every_layer_once_in_order(names: list[str]) -> None:
    found = stages(names)
    assert [i for one in found for i in range(one.start, one.stop)] == list(range(len(names)))
    for one in found:
        assert all(name == one.name or name.startswith(f"{one.name}.") for name in names[one.start : one.stop])


def test_every_norm_of_a_resnet_stands_beside_its_convolution() -> None:
    weights, norms = resnet((2, 2, 2, 2))
    assert places(weights, norms) == list(range(20))


def test_layers_of_a_sequence_go_by_their_numbers() -> None:
    assert places(["0", "3", "6", "10"], ["1", "4", "7"]) == [0, 1, 2]
    assert places(["0", "1", "4"], ["2", "5"]) == [1, 2]


@pytest.mark.parametrize(("weights", "norms", "expected"), [([], ["a", "b"], [0, 1]), (["a"], [], []), ([], [], [])])
def test_nothing_to_stand_beside(weights: list[str], norms: list[str], expected: list[int]) -> None:
    assert places(weights, norms) == expected


@given(NAMES.filter(bool), NAMES)
def test_places_keep_the_order(weights: list[str], norms: list[str]) -> None:
    found = places(weights, norms)
    assert len(found) == len(norms)
    assert found == sorted(found)
    assert all(0 <= place < len(weights) for place in found)
