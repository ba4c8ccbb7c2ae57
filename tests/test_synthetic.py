"""Synthetic inputs look like real ones where it matters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from idealgroups.errors import IdealGroupsError
from idealgroups.synthetic import CHANNEL_CORRELATION, IMAGE_MEAN_SHARE, synthetic


def test_pink_noise_has_the_moments_of_photographs() -> None:
    x = synthetic((2000, 3, 16, 16), "pink")
    assert float(x.square().mean()) == pytest.approx(1, abs=0.05)
    assert float(x.mean((2, 3)).square().mean()) == pytest.approx(IMAGE_MEAN_SHARE, abs=0.03)
    correlation = np.corrcoef(x.transpose(0, 1).reshape(3, -1).numpy())
    assert correlation[np.triu_indices(3, 1)] == pytest.approx(CHANNEL_CORRELATION, abs=0.03)


def test_pink_noise_has_amplitude_one_over_f() -> None:
    x = synthetic((500, 1, 64, 64), "pink")
    power = torch.fft.fft2(x).abs().square().mean((0, 1))
    assert float(power[0, 2] / power[0, 16]) == pytest.approx((16 / 2) ** 2, rel=0.3)


@pytest.mark.parametrize("shape", [(4, 7), (4, 3, 32), (4, 3, 8, 16), (2, 3, 4, 8, 8)])
def test_any_number_of_dimensions_and_the_same_for_the_same_seed(shape: tuple[int, ...]) -> None:
    for data in ("pink", "noise"):
        first, same, other = (synthetic(shape, data, seed) for seed in (0, 0, 1))
        assert tuple(first.shape) == shape
        assert torch.equal(first, same)
        assert not torch.equal(first, other)
        assert first.isfinite().all()


def test_shapes_that_are_none() -> None:
    for shape in ((3,), (0, 3, 4), (2, 3, 0)):
        with pytest.raises(IdealGroupsError):
            synthetic(shape)
