"""The two quantities of the pilot of leads, by another route."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.pilots.leads import effective_rank, leverage


@pytest.mark.parametrize("position", [0.1, 0.25, 0.5, 0.9])
def test_the_leverage_of_a_step_is_what_it_adds_to_the_rise_of_a_least_squares_line(position: float) -> None:
    x = np.linspace(0, 1, 4001)
    rise = np.polyfit(x, (x > position).astype(float), 1)[0]
    assert leverage(position) == pytest.approx(rise, abs=2e-3)


def test_the_mean_leverage_is_one() -> None:
    assert np.mean([leverage((i + 0.5) / 1000) for i in range(1000)]) == pytest.approx(1, abs=1e-5)


def test_the_effective_rank_of_gradients_that_differ_in_one_direction_is_one_and_of_isometric_ones_all() -> None:
    one = torch.outer(torch.arange(5.0), torch.randn(7, generator=torch.Generator().manual_seed(0)))
    assert effective_rank(one + 3) == pytest.approx(1)
    assert effective_rank(torch.eye(6)) == pytest.approx(5)
