"""The moments that calibration rests on, against numpy in double precision."""

from __future__ import annotations

import numpy as np
import torch

from idealgroups.calibration.reference import Target


def test_mean_and_variance_of_a_call_also_far_from_zero_and_where_nothing_varies() -> None:
    z = torch.randn(4, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    z[:, 1] += 100
    z[:, 2] = 7
    found = Target(torch.zeros(4, 3, 30), None).moments("layer", z)
    flat = z.double().numpy().reshape(4, 3, 30)
    np.testing.assert_allclose(found.mean, flat.mean(2), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.var, flat.var(2), rtol=1e-5, atol=1e-8)
