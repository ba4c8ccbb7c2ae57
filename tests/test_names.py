"""Names of layers that fit a column and can still be told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idealgroups.names import full_name, short_names

COMPONENTS = st.sampled_from(["encoder", "decoder", "layer1", "0", "1", "bn1", "norm", "a_component_of_many_words"])
NAMES = st.lists(COMPONENTS, min_size=1, max_size=6).map(".".join)


def test_names_that_fit_stay_as_they_are() -> None:
    rows = [["bn1"], ["layer1.0.bn1", "layer1.0.bn2"]]
    assert short_names(rows, 80) == [full_name(row) for row in rows] == ["bn1", "layer1.0.bn1 … layer1.0.bn2 (2)"]


@pytest.mark.parametrize(
    ("width", "short"),
    [
        (17, "body.layer1.0.bn1"),
        (16, "…layer1.0.bn1"),
        (13, "…layer1.0.bn1"),
        (12, "…0.bn1"),
        (8, "…0.bn1"),
    ],
)
def test_a_long_name_loses_whole_components_at_its_front(width: int, short: str) -> None:
    assert short_names([["body.layer1.0.bn1"]], width) == [short]


@pytest.mark.parametrize(
    ("width", "short"),
    [
        (40, "down.0.resnets.0.norm1 … mid.norm2 (7)"),
        (38, "down.0.resnets.0.norm1 … mid.norm2 (7)"),
        (37, "down.0.resnets.0.norm1 … (7)"),
        (27, "…0.resnets.0.norm1 … (7)"),
    ],
)
def test_of_several_layers_the_last_name_gives_way_first(width: int, short: str) -> None:
    names = ["down.0.resnets.0.norm1", *("x",) * 5, "mid.norm2"]
    assert short_names([names], width) == [short]


def test_the_last_name_keeps_what_sets_it_apart() -> None:
    assert short_names([["body.layer1.0.bn1", "body.layer1.0.bn3"]], 30) == ["body.layer1.0.bn1 … 0.bn3 (2)"]
    assert short_names([["body.layer1.0.bn1", "body.layer2.0.bn1"]], 30) == ["body.layer1.0.bn1 … (2)"]


def test_names_that_would_look_alike_keep_their_front() -> None:
    rows = [["encoder.layer1.0.block.bn1"], ["decoder.layer1.0.block.bn1"], ["encoder.layer2.0.block.bn1"]]
    assert short_names(rows, 20) == ["encoder…0.block.bn1", "decoder…0.block.bn1", "…layer2.0.block.bn1"]
    rows = [["a.0.block.norm.bn1", "a.0.block.norm.bn2"], ["a.1.block.norm.bn1", "a.1.block.norm.bn2"]]
    assert short_names(rows, 18) == ["a.0…norm.bn1 … (2)", "a.1…norm.bn1 … (2)"]


def test_a_component_that_is_too_long_loses_its_middle() -> None:
    assert short_names([["x" * 50]], 11) == ["xxxxx…xxxxx"]


@given(st.lists(NAMES, min_size=1, max_size=8, unique=True), st.integers(12, 60))
def test_every_name_fits(names: list[str], width: int) -> None:
    assert all(len(name) <= width for name in short_names([[name] for name in names], width))
    assert len(short_names([names], max(width, 20))[0]) <= max(width, 20)


@given(st.lists(st.sampled_from(["encoder", "layer1", "0", "bn1"]), min_size=3, max_size=9), st.integers(20, 40))
def test_a_single_name_is_cut_at_a_dot(parts: list[str], width: int) -> None:
    name = ".".join(parts)
    short = short_names([[name]], width)[0]
    assert short == name or f".{name}".endswith(short.replace("…", "."))
