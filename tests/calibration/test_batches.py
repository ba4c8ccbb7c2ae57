"""Calibration data in every form that people hold it in."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from idealgroups import IdealGroupsError
from idealgroups.calibration.batches import count_samples, first_samples, read_batches

ONE = nn.Linear(3, 2)
X, Y = torch.arange(30.0).reshape(10, 3), torch.arange(10)


class Two(nn.Module):
    def forward(self, a, b, scale=None):
        return a + b


def test_a_tensor_a_tuple_and_a_dict_are_one_batch():
    for batch in (X, (X, X), {"input": X}):
        assert read_batches(ONE, batch, 512) == [batch]


@pytest.mark.parametrize("data", [DataLoader(X, 4), [X[:4], X[4:8], X[8:]], iter([X[:4], X[4:8], X[8:]])])
def test_batches_of_inputs(data):
    found = read_batches(ONE, data, 512)
    assert torch.equal(torch.cat(found), X)
    assert count_samples(found) == 10


def test_labels_behind_the_inputs_are_dropped():
    found = read_batches(ONE, DataLoader(TensorDataset(X, Y), 4), 512)
    assert torch.equal(torch.cat(found), X)
    pairs = read_batches(Two(), DataLoader(TensorDataset(X, -X, Y), 4), 512)
    assert [len(batch) for batch in pairs] == [2, 2, 2]
    assert torch.equal(torch.cat([batch[1] for batch in pairs]), -X)


def test_dicts_of_a_loader_are_keywords():
    found = read_batches(ONE, [{"input": X}, {"input": X}], 512)
    assert found[1]["input"] is X


def test_reading_stops_at_the_batch_that_is_enough():
    def endless():
        while True:
            yield X

    assert len(read_batches(ONE, endless(), 25)) == 3


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ([], "empty"),
        (DataLoader(TensorDataset(X[:0])), "empty"),
        (X[:1], "on 1 sample;"),
        (X[:0], "on no samples;"),
        (torch.where(X == 4, torch.nan, X), "batch 1 of .* NaN"),
        ([X, X / 0], "batch 2 of .* infinite"),
        (7, "of type int"),
        (["image.png"], "holds no tensor"),
        ([[]], "holds no tensor"),
    ],
)
def test_data_that_will_not_do_is_refused_in_one_sentence(data, why):
    with pytest.raises(IdealGroupsError, match=why) as caught:
        read_batches(ONE, data, 512)
    assert str(caught.value).count(". ") == 0


def test_the_first_samples_of_batches_of_every_form():
    assert torch.equal(first_samples(X, 3), X[:3])
    assert first_samples({"a": X, "b": [Y]}, 3)["b"][0].tolist() == [0, 1, 2]
    assert first_samples(X, 20) is X
    pair = (X, Y[:4])  # not one size, so nobody knows which dimension the samples are in
    assert first_samples(pair, 3) is pair
