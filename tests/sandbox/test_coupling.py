"""Whether the samples of a batch see each other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.sandbox.coupling import coupled

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(288, 4))


class BatchRenorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)


class Attention(nn.Module):
    """Samples attend to samples, with no normalization at all."""

    def forward(self, x: Tensor) -> Tensor:
        flat = 0.1 * x.flatten(1)
        return torch.softmax(flat @ flat.T, 1) @ flat


@pytest.mark.parametrize(
    "model", [net(nn.BatchNorm2d(8)), net(nn.BatchNorm2d(8)).eval(), net(BatchRenorm()), Attention()]
)
def test_models_whose_samples_see_each_other(model: nn.Module) -> None:
    assert coupled(model, IMAGES) is True


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), nn.Identity()])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_models_whose_samples_do_not(norm: nn.Module, size: int) -> None:
    assert coupled(net(norm), IMAGES[:size]) is False


def test_a_batch_of_one_is_told_too() -> None:
    assert coupled(net(nn.BatchNorm2d(8)), IMAGES[:1]) is True


def test_conversion_takes_the_coupling_away_and_what_is_left_is_seen() -> None:
    model = net(nn.BatchNorm2d(8))
    assert coupled(model, IMAGES)
    assert not coupled(ig.convert(model, IMAGES)[0], IMAGES)
    both = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), BatchRenorm())
    assert coupled(ig.convert(both, IMAGES)[0], IMAGES)


def test_the_model_and_the_generators_are_left_alone() -> None:
    model = net(nn.BatchNorm2d(8)).eval()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    coupled(model, IMAGES)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training


def test_inputs_in_containers_and_tokens() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.norm = nn.Embedding(10, 8), nn.BatchNorm1d(8)

        def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
            return {"y": self.norm((self.table(ids) * mask[..., None]).mT)}

    inputs = {"ids": torch.arange(12).reshape(3, 4) % 10, "mask": torch.ones(3, 4)}
    assert coupled(Tokens(), inputs) is True


def test_what_cannot_be_told_is_none() -> None:
    assert coupled(nn.Flatten(0), IMAGES) is None
    assert coupled(nn.Linear(3, 3), IMAGES) is None  # it raises
    assert coupled(nn.Identity(), "text") is None


def test_samples_inside_an_object_cannot_be_told() -> None:
    """They are not changed, so that nothing moves is no news."""

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net(nn.BatchNorm2d(8))

        def forward(self, batch: SimpleNamespace) -> Tensor:
            y: Tensor = self.net(batch.images)
            return y

    assert coupled(Inside(), (SimpleNamespace(images=IMAGES),)) is None
    assert coupled(net(nn.BatchNorm2d(8)), (IMAGES,)) is True
