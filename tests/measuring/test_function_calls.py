"""What the modes see of a model, and that they do not see code of our own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import idealgroups as ig
from idealgroups.errors import InternalError, NoNormalizationError, internal
from idealgroups.measuring.function_calls import NoDropout, unseen
from idealgroups.measuring.observer import Observer
from idealgroups.measuring.shapes import without_values

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
        (lambda: torch.ops.aten.dropout.default(ONES, 0.5, True), True),
        (lambda: nn.Dropout(0.5)(ONES), True),
        (lambda: nn.Dropout(0.5).eval()(ONES), False),
    ],
)
def test_no_dropout_tells_only_of_dropout_that_would_have_dropped_something(call: object, used: bool) -> None:
    with NoDropout() as mode:
        assert torch.equal(call(), ONES)  # type: ignore[operator]
    assert mode.used is used


@pytest.mark.parametrize("name", ["dropout", "dropout2d", "alpha_dropout"])
def test_dropout_with_a_function_of_somebody_around_it_is_off_too(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    original = getattr(F, name)
    monkeypatch.setattr(F, name, lambda *args, **kwargs: original(*args, **kwargs))  # as profilers do
    x = torch.ones(2, 3, 4, 4)
    with NoDropout() as mode:
        assert torch.equal(getattr(F, name)(x, 0.5, True), x)
    assert mode.used


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


class ByFunction(nn.Module):
    """Normalizes by ``function``, with γ and β and statistics of its own."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)
        self.weight, self.bias = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalize, classify."""
        return self.head(self.function(self.conv(x), self.weight, self.bias).relu().mean((2, 3)))


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, training=True)


def group_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.group_norm(x, 4, weight, bias)


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, weight=weight, bias=bias)


def of_an_exported_graph(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.ops.aten.batch_norm.default(x, weight, bias, None, None, True, 0.1, 1e-5, False)


CALLS = {
    batch_norm: "calls F.batch_norm itself; make it a module, for a function's groups cannot be replaced",
    group_norm: "calls torch.group_norm itself; make it a module, for a function's groups cannot be replaced",
    instance_norm: "calls F.instance_norm itself; make it a module, for a function's groups cannot be replaced",
    of_an_exported_graph: "calls aten.batch_norm, as exported graphs do; plan and convert the network before "
    "torch.export",
}
IMAGES = torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize("strategy", ["isometric", "block"])
def test_a_network_that_normalizes_by_functions_alone_is_told_so(
    function: Callable[..., Tensor], strategy: str
) -> None:
    models = [ByFunction(function)]
    if strategy == "block":
        with without_values():
            models.append(ByFunction(function))
    for model in models:
        with pytest.raises(NoNormalizationError) as error:
            ig.plan(model, IMAGES, strategy=strategy)
        assert str(error.value) == (
            "ByFunction has no normalization layer over channels, so there is no number of groups to plan; "
            f"not understood: ByFunction {CALLS[function]}."
        )


@pytest.mark.parametrize("function", CALLS)
def test_a_plan_from_shapes_names_functions_that_normalize_as_a_measured_one_does(
    function: Callable[..., Tensor],
) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), ByFunction(function))

    with without_values():
        fake = build()
    plans = [ig.plan(model, IMAGES, strategy="block") for model in (build(), fake)]
    for plan in plans:
        assert [(missed.name, missed.why) for missed in plan.not_understood] == [("2", CALLS[function])]


def test_an_exported_graph_is_told_to_be_planned_before() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 2)).eval()
    exported = torch.export.export(network, (IMAGES,)).module()
    with pytest.raises(NoNormalizationError, match=r"aten\.batch_norm, as exported graphs do; plan .* before torch"):
        ig.plan(exported, IMAGES)


def test_a_fault_of_ours_is_no_reason_to_say_that_there_is_no_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        with internal("looking"):
            raise KeyError("x")

    monkeypatch.setattr(Observer, "survey", fails)
    with pytest.raises(InternalError):
        ig.plan(nn.Conv2d(3, 2, 1), IMAGES)


def test_without_a_layer_to_plan_what_a_model_raises_does_not_hide_that() -> None:
    with pytest.raises(NoNormalizationError, match=r"^Conv2d has no normalization layer .* are understood"):
        ig.plan(nn.Conv2d(5, 2, 1), IMAGES)


@pytest.mark.parametrize(
    ("home", "name", "function"), [(F, "batch_norm", batch_norm), (torch, "group_norm", group_norm)], ids=["F", "torch"]
)
def test_a_norm_by_function_is_told_where_somebody_put_a_function_around_it(
    monkeypatch: pytest.MonkeyPatch, home: object, name: str, function: Callable[..., Tensor]
) -> None:
    original = getattr(home, name)
    monkeypatch.setattr(home, name, lambda *args, **kwargs: original(*args, **kwargs))
    with pytest.raises(NoNormalizationError, match=CALLS[function].partition(";")[0]):
        ig.plan(ByFunction(function), IMAGES)
