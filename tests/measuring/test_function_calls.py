"""What the modes see of a model, and that they do not see code of our own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idealgroups.errors import InternalError
from idealgroups.measuring.function_calls import NoDropout, unseen

ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("call", "used"),
    [
        (lambda: F.dropout(ONES, 0.5), True),
        (lambda: F.dropout(ONES, 0.5, False), False),
        (lambda: F.dropout(ONES, 0.5, training=False), False),
        (lambda: F.alpha_dropout(ONES, 0.5), False),
        (lambda: F.alpha_dropout(ONES, 0.5, True), True),
        (lambda: F.feature_alpha_dropout(input=ONES, training=True), True),
        (lambda: nn.Dropout(0.5)(ONES), True),
        (lambda: nn.Dropout(0.5).eval()(ONES), False),
    ],
)
def test_no_dropout_tells_only_of_dropout_that_would_have_dropped_something(call: object, used: bool) -> None:
    with NoDropout() as mode:
        assert torch.equal(call(), ONES)  # type: ignore[operator]
    assert mode.used is used


def test_a_mode_does_not_see_what_we_do_and_sees_what_follows() -> None:
    x = torch.ones(3)
    with NoDropout() as mode:
        with unseen("looking", x):
            assert int(F.dropout(x, 1.0).sum()) == 0
        assert not mode.used
        assert torch.equal(F.dropout(x, 1.0), x)


def test_tensors_of_a_class_of_their_own_keep_what_it_does() -> None:
    class Loud(Tensor):
        """Its functions give tensors of its class."""

    with unseen("looking", torch.ones(3).as_subclass(Loud)):
        assert type(torch.ones(3).as_subclass(Loud) + 1) is Loud


def test_a_fault_in_code_of_our_own_is_ours() -> None:
    with pytest.raises(InternalError, match="while looking"), unseen("looking"):
        raise KeyError("x")
    with NoDropout():
        assert torch.equal(F.dropout(ONES, 1.0), ONES)
