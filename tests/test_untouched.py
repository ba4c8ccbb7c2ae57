"""Planning and converting leave no trace: not on the model, its inputs, its generators, or what it refers to."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import idealgroups as ig
from idealgroups.measuring.observer import Observer
from idealgroups.sandbox.copying import copy_model

IMAGES = torch.randn(4, 3, 10, 10)


def body(channels: int = 16, norm: Any = nn.BatchNorm2d) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in in (3, channels):
        layers += [nn.Conv2d(fan_in, channels, 3, padding=1), norm(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


class Around(nn.Module):
    """A body and a function that is applied around it."""

    def __init__(self, before: Any = None, after: Any = None) -> None:
        super().__init__()
        self.body = body()
        self.before, self.after = before, after

    def forward(self, x: Any) -> Any:
        y = self.body(self.before(x) if self.before else x)
        return self.after(y) if self.after else y


def no_gradients(model: nn.Module) -> bool:
    return all(parameter.grad is None for parameter in model.parameters())


def test_what_the_loss_refers_to_gets_no_gradient() -> None:
    model, criterion = body(), nn.Linear(5, 1)

    def loss(output: Tensor) -> Tensor:
        decay = sum(parameter.square().sum() for parameter in model.parameters())
        return criterion(output).mean() + 1e-4 * decay

    ig.plan(model, IMAGES, loss=loss)
    assert no_gradients(model)
    assert no_gradients(criterion)


def test_reentrant_checkpoints_are_measured_like_none_and_foreign_gradients_are_put_back() -> None:
    class Checkpointed(nn.Module):
        def __init__(self, on: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body, self.on = body(), on

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.body, x, use_reentrant=True) if self.on else self.body(x)

    x, criterion = IMAGES.clone().requires_grad_(), nn.Linear(5, 1)
    criterion.weight.grad = torch.full_like(criterion.weight, 7.0)
    plain, checkpointed = (ig.plan(Checkpointed(on), x, loss=lambda y: criterion(y).mean()) for on in (False, True))
    assert checkpointed.num_groups == plain.num_groups
    assert checkpointed.trend_after == pytest.approx(plain.trend_after)
    assert x.grad is None
    assert criterion.weight.grad.eq(7).all()


def test_a_function_that_refers_to_a_layer_runs_the_layer_of_the_copy() -> None:
    class Closure(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body()
            self.run = lambda x: self.body(x)

        def forward(self, x: Tensor) -> Tensor:
            return self.run(x)

    model = Closure()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    plain = ig.plan(model.body, IMAGES)
    assert list(ig.plan(model, IMAGES).num_groups.values()) == list(plain.num_groups.values())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert no_gradients(model)


def test_a_layer_reached_through_an_object_is_refused_when_it_would_run() -> None:
    class Opaque:
        """Refers to a layer; shared with every copy."""

        def __init__(self, layer: nn.Module) -> None:
            self.layer = layer

        def __deepcopy__(self, memo: Any) -> Opaque:
            return self

        def __call__(self, x: Tensor) -> Tensor:
            return self.layer(x)

    model = Around()
    model.before = Opaque(nn.Sequential())
    assert ig.plan(model, IMAGES).num_groups
    model.extra = nn.BatchNorm2d(3)
    model.before = Opaque(model.extra)
    with pytest.raises(ig.IdealGroupsError, match="BatchNorm2d of its own"):
        ig.plan(model, IMAGES)
    assert int(model.extra.num_batches_tracked) == 0


def test_weak_references_and_flags_on_parameters_follow_the_copy() -> None:
    model = Around()
    model.body[0].owner = weakref.ref(model)
    model.body[0].weight.no_decay = True
    twin = copy_model(model)
    assert twin.body[0].owner() is twin
    assert twin.body[0].weight.no_decay


def test_generators_of_other_devices_are_not_seeded() -> None:
    """What ``torch.manual_seed`` leaves for CUDA to do when it starts is what the user left."""
    pending = getattr(torch.cuda, "_lazy_seed_tracker", None)
    torch.manual_seed(123)
    if pending is None or pending.manual_seed_all_cb is None:
        pytest.skip("CUDA has started or is not there")
    left = pending.manual_seed_all_cb
    ig.plan(body(), IMAGES)
    assert pending.manual_seed_all_cb is left


def test_a_layer_that_draws_random_numbers_when_tried_leaves_the_generator() -> None:
    class Noisy(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y + 1e-9 * torch.randn_like(y)

    model = body(norm=Noisy)
    before = torch.get_rng_state()
    plan = ig.plan(model, IMAGES)
    ig.apply(model, plan)
    assert torch.equal(torch.get_rng_state(), before)


def test_inputs_in_an_object_are_not_changed() -> None:
    @dataclass
    class Batch:
        x: Tensor

    batch = Batch(IMAGES.clone())
    ig.plan(Around(before=lambda b: b.x.mul_(0.5)), batch)
    assert torch.equal(batch.x, IMAGES)


def test_the_copy_is_freed_without_waiting_for_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[weakref.ref[nn.Module]] = []
    init = Observer.__init__

    def spy(self: Observer, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        copies.append(weakref.ref(self.model))

    monkeypatch.setattr(Observer, "__init__", spy)
    gc.collect()
    gc.disable()
    try:
        plan = ig.plan(body(), IMAGES)
        ig.measure(body(), IMAGES, plan=plan)
        assert len(copies) >= 2
        assert [ref() for ref in copies] == [None] * len(copies)
    finally:
        gc.enable()


class Stateful(nn.Module):
    """Remembers: a buffer that counts, a hidden state, a list."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = body()
        self.hidden: Tensor | None = None
        self.seen: list[Tensor] = []
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        y = self.body(x * 0.5**self.count) + (0 if self.hidden is None else self.hidden) + len(self.seen)
        self.hidden = y
        self.seen.append(y)
        return y


def test_no_pass_changes_what_the_next_one_measures() -> None:
    from idealgroups.comparison import compare

    first, _, last = compare(Stateful(), IMAGES, ["layer", "fixed-32", "layer"])
    (alone,) = compare(Stateful(), IMAGES, ["layer"])
    assert first.trend_after == last.trend_after == alone.trend_after


def test_a_norm_that_keeps_its_output_can_be_planned_and_converted_after_a_run() -> None:
    class Keeps(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            self.last = super().forward(x)
            return self.last

    model = body(norm=Keeps)
    fresh = ig.plan(model, IMAGES)
    model(IMAGES)
    assert ig.plan(model, IMAGES).num_groups == fresh.num_groups
    with pytest.warns(UserWarning, match="statistics"):
        ig.apply(model, fresh)


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.norm(input=self.conv(x))).mean((2, 3)))


class Forces(nn.Module):
    """Differentiates its output with respect to its input, as models of energies do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, x: Tensor) -> Tensor:
        (force,) = torch.autograd.grad(self.body(x).sum(), x, create_graph=True)
        return force


class OwnDtype(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.dtype = body(), torch.bfloat16

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.to(self.dtype))


class SometimesEmpty(nn.Module):
    """A detector's head whose proposals may be none."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body(norm=lambda c: nn.GroupNorm(4, c))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(x), self.body(x[:0])


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        pytest.param(Keyword(), IMAGES, id="norm called by keyword"),
        pytest.param(Forces(), IMAGES.clone().requires_grad_(), id="forces"),
        pytest.param(OwnDtype().bfloat16(), IMAGES, id="dtype of its own"),
        pytest.param(SometimesEmpty(), IMAGES, id="empty batch"),
        pytest.param(Around(after=torch.fft.fft), IMAGES, id="complex output"),
        pytest.param(Around(after=lambda y: SimpleNamespace(features=[y])), IMAGES, id="lists in an object"),
        pytest.param(Around(before=lambda b: b["image"]), ({"image": IMAGES},), id="one dict"),
    ],
)
def test_calls_and_values_of_every_kind(model: nn.Module, inputs: Any) -> None:
    assert ig.plan(model, inputs).num_groups


def test_modes_and_default_devices_around_the_call() -> None:
    expected = ig.plan(model := body(), IMAGES).num_groups
    with torch.inference_mode():
        plan = ig.plan(model, IMAGES)
        converted = ig.apply(model, plan)
    assert plan.num_groups == expected
    assert not any(tensor.is_inference() for tensor in converted.parameters())
    with torch.no_grad():
        assert ig.plan(model, IMAGES).num_groups == expected
    torch.set_default_device("meta")
    try:
        assert ig.plan(model, IMAGES).num_groups == expected
    finally:
        torch.set_default_device("cpu")
        torch.set_default_device(None)


def test_a_synchronized_norm_waits_for_nobody(tmp_path: Any) -> None:
    from torch import distributed

    model = body()
    expected = ig.plan(model, IMAGES).num_groups
    distributed.init_process_group("gloo", rank=0, world_size=1, init_method=f"file://{tmp_path / 'store'}")
    try:
        synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        assert ig.plan(synchronized, IMAGES).num_groups == expected
    finally:
        distributed.destroy_process_group()


def test_weights_that_people_name_themselves() -> None:
    class Conv(nn.Module):
        def __init__(self, fan_in: int, fan_out: int) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(fan_out, fan_in, 3, 3) * 0.1)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.kernel)

    class Linear(nn.Module):
        def __init__(self, fan_in: int, fan_out: int) -> None:
            super().__init__()
            self.W = nn.Parameter(torch.randn(fan_in, fan_out) * 0.1)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.W

    model = nn.Sequential(Conv(3, 8), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Linear(8, 5))
    assert [layer.name for layer in ig.measure(model, IMAGES).layers] == ["0.kernel", "4.W"]


def test_a_block_whose_name_begins_like_drop_out_keeps_training() -> None:
    class DropBlockNet(nn.Sequential):
        pass

    model = DropBlockNet(*body())
    assert ig.plan(model, IMAGES).num_groups == ig.plan(nn.Sequential(*model), IMAGES).num_groups


class Boom(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        raise ValueError("boom")


@pytest.mark.parametrize(
    ("model", "inputs", "options", "message"),
    [
        (Around(after=Boom.apply), IMAGES, {}, "backward pass raised ValueError: boom"),
        (Around(before=lambda b: b["image"]), {"image": IMAGES}, {}, r"in a tuple, \(inputs,\)"),
        (body(), IMAGES, {"seed": None}, "seed must be an integer"),
        (body(), IMAGES, {"seed": 2**63}, "seed must be an integer"),
        (body(), IMAGES, {"strategy": None}, "None is no strategy"),
    ],
)
def test_errors_are_one_sentence(model: nn.Module, inputs: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ig.IdealGroupsError, match=message):
        ig.plan(model, inputs, **options)


class Fork(nn.Module):
    """A head that only trains."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.extra = body(), body()

    def forward(self, x: Tensor, both: bool = False) -> Any:
        return (self.main(x), self.extra(x)) if both else self.main(x)


def test_norms_that_did_not_run_are_announced() -> None:
    with pytest.warns(UserWarning, match=r"layer extra\.1 stays as it is because it did not run .*1 other as well"):
        ig.convert(Fork(), IMAGES)
    plan = ig.convert(Fork(), (IMAGES, True))[1]
    assert not plan.not_understood
    ig.convert(Fork(), IMAGES, exclude="extra.*")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ig.convert(body(), IMAGES, include=3), "3 is no pattern"),
        (lambda: ig.convert(Around(), IMAGES, exclude="body"), r"write 'body\.\*'"),
        (lambda: ig.Plan.load(None), "a path is a str or a Path, not None"),
        (lambda: ig.norm_layer("plan.json", body), "a Plan is needed, not a str"),  # type: ignore[arg-type]
        (lambda: ig.norm_layer(ig.plan(body(), IMAGES), body()), "build is a network, not the function"),
        (lambda: ig.norm_layer(ig.plan(body(), IMAGES), body), "raised TypeError: .*takes norm_layer"),
        (lambda: ig.norm_layer(ig.plan(body(), IMAGES), lambda norm_layer: 3), "returned a int"),
        (lambda: ig.plan(body(), IMAGES.numpy()), "hold a NumPy array"),
        (lambda: ig.plan(body(), torch.zeros(4, 3, 8, 8)), "all zero"),
    ],
)
def test_slips_are_one_sentence(call: Any, message: str) -> None:
    with pytest.raises(ig.IdealGroupsError, match=message):
        call()


def test_a_small_slope_is_not_a_scale_to_wake() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU(init=0.05), nn.Flatten(), nn.Linear(512, 5))
    observer = Observer(model, IMAGES)
    assert not observer.woken
