"""What is replaced, kept, left, refused and warned about."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import timm
import timm.layers as tl
import torch
import torchvision
from timm.layers.norm_act import FrozenBatchNormAct2d
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops.misc import FrozenBatchNorm2d

import idealgroups as ig
from hand_plans import groups_in, make_plan, make_site, mixed_groups, plan_for
from idealgroups.api import apply
from idealgroups.conversion.surgery import replace_norms
from idealgroups.errors import IdealGroupsError
from idealgroups.norms.group_norm_act import GroupNormAct
from idealgroups.records import NotUnderstood
from idealgroups.results import Plan
from idealgroups.sandbox.copying import copy_model


class PlainSubclass(nn.BatchNorm2d):
    pass


def small(norm: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm or nn.BatchNorm2d(8), nn.ReLU())


def after_first_run(lazy: nn.Module) -> nn.Module:
    lazy.eval()(torch.randn(2, 8, 4, 4))
    return lazy.train()


IMAGE, VECTOR, CLIP = (2, 8, 6, 6), (2, 8), (2, 8, 3, 4, 4)
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "BatchNorm1d": (lambda: nn.BatchNorm1d(8), VECTOR),
    "BatchNorm1d on sequences": (lambda: nn.BatchNorm1d(8), (2, 8, 5)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(8), IMAGE),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(8), CLIP),
    "a subclass": (lambda: PlainSubclass(8), IMAGE),
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm(8), IMAGE),
    "lazy": (lambda: after_first_run(nn.LazyBatchNorm2d()), IMAGE),
    "lazy instance norm": (lambda: after_first_run(nn.LazyInstanceNorm2d(affine=True)), IMAGE),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(8, affine=True), (2, 8, 5)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(8), IMAGE),
    "InstanceNorm3d": (lambda: nn.InstanceNorm3d(8, track_running_stats=True), CLIP),
    "FrozenBatchNorm2d": (lambda: FrozenBatchNorm2d(8), IMAGE),
    "torchvision LayerNorm2d": (lambda: LayerNorm2d(8, eps=1e-6), IMAGE),
    "timm LayerNorm2d": (lambda: tl.LayerNorm2d(8), IMAGE),
    "timm LayerNormAct2d": (lambda: tl.LayerNormAct2d(8, act_layer=nn.SiLU), IMAGE),
    "timm BatchNormAct2d": (lambda: tl.BatchNormAct2d(8, act_layer=nn.SiLU), IMAGE),
    "timm FrozenBatchNormAct2d": (lambda: FrozenBatchNormAct2d(8, act_layer=nn.SiLU), IMAGE),
    "timm SyncBatchNormAct": (lambda: tl.convert_sync_batchnorm(tl.BatchNormAct2d(8, act_layer=nn.SiLU)), IMAGE),
    "GroupNorm": (lambda: nn.GroupNorm(8, 8), IMAGE),
    "timm GroupNorm1": (lambda: tl.GroupNorm1(8), IMAGE),
    "timm GroupNormAct": (lambda: tl.GroupNormAct(8, 8, act_layer=nn.SiLU), IMAGE),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer_becomes_the_planned_group_norm(name: str) -> None:
    build, shape = LAYERS[name]
    layer = build()
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias):
            if tensor is not None:
                tensor.copy_(torch.linspace(0.5, 1.5, 8) if tensor is layer.weight else torch.full((8,), 0.3))
    model = nn.Sequential(layer)
    done = replace_norms(model, plan_for(model, {"0": 2}))
    assert done.replaced == {"0": (type(layer).__name__, 2)}
    assert done.left == {}
    new = done.model[0]
    assert isinstance(new, nn.GroupNorm)
    x = torch.randn(shape)
    gamma = None if layer.weight is None else layer.weight.detach()
    beta = None if layer.bias is None else layer.bias.detach()
    expected = nn.functional.group_norm(x, 2, gamma, beta, layer.eps)
    if "Act" in name:
        expected = nn.functional.silu(expected)
    torch.testing.assert_close(done.model(x).detach(), expected)


def test_values_flags_and_names_are_kept() -> None:
    model = small(nn.BatchNorm2d(8, eps=0.0, dtype=torch.float64)).to(torch.float64)
    old = model[1]
    nn.init.zeros_(old.weight)
    nn.init.uniform_(old.bias)
    old.bias.requires_grad_(False)
    old.eval()
    old._is_initialized = True
    before = {key: value.clone() for key, value in model.state_dict().items()}
    new = apply(model, plan_for(model))[1]
    assert type(new) is nn.GroupNorm
    assert (new.eps, new.training, new.affine, new.num_channels) == (0.0, False, True, 8)
    assert (new.weight.requires_grad, new.bias.requires_grad) == (True, False)
    assert new.weight.dtype == torch.float64
    assert new._is_initialized
    assert not hasattr(new, "running_mean")
    assert not hasattr(new, "momentum")
    assert list(new.state_dict()) == ["weight", "bias"]
    assert torch.equal(new.weight, before["1.weight"])
    assert torch.equal(new.bias, before["1.bias"])


def test_a_converted_layer_looks_like_a_built_one() -> None:
    new = apply(small(), plan_for(small()))[1]
    built = nn.GroupNorm(4, 8)
    assert vars(new).keys() == vars(built).keys()
    assert repr(new) == repr(built)
    assert new.state_dict().keys() == built.state_dict().keys()


@pytest.mark.parametrize(
    ("norm", "names"),
    [
        (nn.BatchNorm2d(8, affine=False), []),
        (nn.GroupNorm(8, 8, affine=False), []),
        (tl.LayerNorm2d(8, bias=False), ["weight"]),
    ],
)
def test_a_layer_without_scale_or_shift_stays_without(norm: nn.Module, names: list[str]) -> None:
    model = small(norm)
    new = apply(model, plan_for(model))[1]
    assert [name for name, _ in new.named_parameters()] == names
    new(torch.randn(2, 8, 4, 8))


def test_half_precision_and_meta_device_are_kept() -> None:
    for model in (small().to(torch.bfloat16), small().to("meta")):
        new = apply(model, plan_for(model))[1]
        assert new.weight.dtype == model[1].weight.dtype
        assert new.weight.device == model[1].weight.device


def test_frozen_layers_stay_frozen() -> None:
    model = small(FrozenBatchNorm2d(8))
    new = apply(model, plan_for(model))[1]
    assert isinstance(new.weight, nn.Parameter)
    assert not new.weight.requires_grad
    assert not new.bias.requires_grad
    assert list(new.state_dict()) == ["weight", "bias"]


def test_the_activation_inside_a_norm_stays_the_same_module() -> None:
    model = small(tl.BatchNormAct2d(8, act_layer=partial(nn.LeakyReLU, 0.3), drop_layer=nn.Dropout))
    act, drop = model[1].act, model[1].drop
    new = apply(model, plan_for(model), inplace=True)[1]
    assert type(new) is GroupNormAct
    assert new.act is act
    assert new.drop is drop
    assert list(new.state_dict()) == ["weight", "bias"]


def test_a_group_norm_keeps_its_own_class() -> None:
    model = small(tl.GroupNormAct(8, 8))
    new = apply(model, plan_for(model, {"1": 2}))[1]
    assert type(new) is tl.GroupNormAct
    assert new.num_groups == 2
    assert model[1].num_groups == 8


# --- copy, in place, shared ------------------------------------------------------------------------------------------


def test_the_model_is_copied(untouched: Callable[[nn.Module, Callable[[], nn.Module]], nn.Module]) -> None:
    model = small()
    new = untouched(model, lambda: apply(model, plan_for(model)))
    assert isinstance(model[1], nn.BatchNorm2d)
    with torch.no_grad():
        new[0].weight.zero_()
    assert model[0].weight.any()


def test_in_place_keeps_the_very_parameters() -> None:
    model = small()
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    assert apply(model, plan_for(model), inplace=True) is model
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    before = model[1].bias.clone()
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model[1].bias)


@pytest.mark.parametrize("inplace", [False, True])
def test_the_model_itself_may_be_a_norm(inplace: bool) -> None:
    model = nn.BatchNorm1d(8)
    new = apply(model, plan_for(model, {"": 2}), inplace=inplace)
    assert isinstance(new, nn.GroupNorm)
    assert (new is model) == inplace


class Sharing(nn.Module):
    """One norm with three owners, one of which is a plain list."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(8)
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3), norm)
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3), norm)
        self.plain = [norm]

    def forward(self, x: Tensor) -> Tensor:
        return self.plain[0](self.second(self.first(x)))


@pytest.mark.parametrize("inplace", [False, True])
def test_a_shared_norm_is_replaced_once_everywhere(inplace: bool) -> None:
    model = Sharing()
    done = replace_norms(model, plan_for(model), inplace=inplace)
    new = done.model
    assert list(done.replaced) == ["first.1"]
    assert isinstance(new.first[1], nn.GroupNorm)
    assert new.first[1] is new.second[1] is new.plain[0]
    assert list(new.state_dict()) == [k for k in Sharing().state_dict() if "running" not in k and "tracked" not in k]


def test_a_shared_norm_may_be_planned_under_both_names_but_not_with_two_numbers() -> None:
    both = make_plan((make_site("first.1", 8, 2), make_site("second.1", 8, 2)))
    assert replace_norms(Sharing(), both).replaced == {"first.1": ("BatchNorm2d", 2)}
    with pytest.raises(IdealGroupsError, match=r"first\.1 and second\.1 are one shared layer.*2 and 4 groups"):
        apply(Sharing(), make_plan((make_site("first.1", 8, 2), make_site("second.1", 8, 4))))


def test_a_parameter_shared_by_two_norms_stays_shared() -> None:
    model = nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(8), FrozenBatchNorm2d(8), FrozenBatchNorm2d(8))
    model[1].weight = model[0].weight
    model[3].weight = model[2].weight
    new = apply(model, plan_for(model))
    assert new[1].weight is new[0].weight
    assert new[1].bias is not new[0].bias
    assert new[3].weight is new[2].weight


def test_hooks_stay_and_their_handles_still_work() -> None:
    model = small()
    seen: list[str] = []
    handle = model[1].register_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    model[1].register_full_backward_hook(lambda module, *_: seen.append("backward"))
    apply(model, plan_for(model), inplace=True)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert seen == ["GroupNorm", "backward"]
    handle.remove()
    model(torch.randn(2, 3, 8, 8))
    assert seen == ["GroupNorm", "backward"]


# --- what is chosen, what is left ------------------------------------------------------------------------------------


def test_include_and_exclude() -> None:
    model = torchvision.models.resnet18()
    plan = plan_for(model)
    done = replace_norms(model, plan, include="layer[12].*", exclude=["layer1.0.bn1", "*.downsample.*"])
    expected = {n for n in plan.num_groups if re.match(r"layer[12]\.", n)} - {"layer1.0.bn1", "layer2.0.downsample.1"}
    assert set(done.replaced) == expected
    assert done.left["layer1.0.bn1"] == "matches exclude"
    assert done.left["layer3.0.bn1"] == "does not match include"
    assert set(done.replaced) | set(done.left) == set(plan.num_groups)
    assert {n for n, m in done.model.named_modules() if isinstance(m, nn.GroupNorm)} == expected


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    model = torchvision.models.resnet18()
    with pytest.raises(IdealGroupsError, match=r"'layer9\.\*' matches no normalization layer"):
        apply(model, plan_for(model), exclude="layer9.*")


def test_what_is_left_is_named_with_its_reason() -> None:
    model = nn.ModuleDict(
        {
            "planned": nn.BatchNorm2d(8),
            "same": nn.GroupNorm(4, 8),
            "silent": nn.BatchNorm2d(8),
            "tokens": nn.LayerNorm(8),
            "odd": tl.RmsNorm2d(8),
            "split": tl.SplitBatchNorm2d(8, num_splits=2),
            "linear": nn.Linear(8, 8),
        }
    )
    plan = dataclasses.replace(
        plan_for(model, {"planned": 2, "same": 4}),
        not_understood=(
            NotUnderstood(name="silent", why="did not run"),
            NotUnderstood(name="split.aux_bn.0", why="did not run"),
        ),
    )
    with pytest.warns(UserWarning, match=r"stays as it is because it did not run \(1 other as well\)"):
        done = replace_norms(model, plan)
    assert done.replaced == {"planned": ("BatchNorm2d", 2)}
    assert done.left == {
        "same": "has its planned number of groups already",
        "silent": "did not run",
        "tokens": "layer norm over the last dimension, not over channels",
        "odd": "RmsNorm2d normalizes in a way of its own, which no group norm stands for",
        "split": "SplitBatchNorm2d has parameters or layers of its own (aux_bn), which a group norm would lose",
        "split.aux_bn.0": "did not run",
    }
    assert str(done).splitlines()[0] == "replaced 1: 1 BatchNorm2d"
    assert "left 2: did not run" in str(done)


def test_layers_unknown_to_the_plan_are_left_with_a_warning() -> None:
    plan = plan_for(torchvision.models.resnet18())
    model = torchvision.models.resnet34()
    with pytest.warns(
        UserWarning, match=r"does not know .* layer1\.2\.bn1 of the model \(15 others as well\)"
    ) as caught:
        done = replace_norms(model, plan)
    assert caught[0].filename == __file__
    assert done.left["layer1.2.bn1"] == "is not in the plan"
    assert len(done.replaced) == 20


def test_nothing_to_do() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.GroupNorm(2, 4))
    done = replace_norms(model, plan_for(model, {"1": 2}))
    assert (dict(done.replaced), str(done)) == ({}, "replaced 0\nleft 1: has its planned number of groups already")


# --- what is refused -------------------------------------------------------------------------------------------------


MISFITS: dict[str, tuple[Plan, str]] = {
    "no such layer": (
        make_plan((make_site("1", 8, 2), make_site("bn", 8, 2), make_site("zz", 8, 2))),
        r"another network: the model has no bn;",
    ),
    "other channels": (make_plan((make_site("1", 16, 2),)), r"1 has 16 channels there and 8 here"),
    "not a norm": (make_plan((make_site("0", 8, 2),)), r"0 is a BatchNorm2d there and a Conv2d here"),
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("case", MISFITS)
def test_a_plan_for_another_network_names_the_first_difference(case: str, inplace: bool) -> None:
    plan, message = MISFITS[case]
    model = small()
    with pytest.raises(IdealGroupsError, match=message):
        apply(model, plan, inplace=inplace)
    assert type(model[1]) is nn.BatchNorm2d


def test_all_problems_are_found_before_anything_changes() -> None:
    model = nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(8))
    with pytest.raises(IdealGroupsError, match="16 channels there"):
        apply(model, make_plan((make_site("0", 8, 2), make_site("1", 16, 2))), inplace=True)
    assert [type(layer) for layer in model] == [nn.BatchNorm2d, nn.BatchNorm2d]


def test_the_error_names_the_nearest_layer() -> None:
    with pytest.raises(IdealGroupsError, match=r"no layer1\.0\.bn3; the nearest name is layer1\.0\.bn"):
        apply(torchvision.models.resnet18(), plan_for(torchvision.models.resnet50()))


def test_a_patched_forward_is_not_thrown_away() -> None:
    model = small()
    model[1].forward = lambda x: x
    with pytest.raises(IdealGroupsError, match=r"forward of 1 was exchanged.*exclude='1'"):
        apply(model, plan_for(model))


@pytest.fixture
def one_process() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def fully_sharded(model: nn.Module) -> nn.Module:
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    return torch.distributed.fsdp.fully_shard(model, mesh=mesh)


def compiled_by_method(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


WRAPPED: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "DataParallel": (nn.DataParallel, "wrapped in DataParallel"),
    "DistributedDataParallel": (nn.parallel.DistributedDataParallel, "wrapped in DistributedDataParallel"),
    "FSDP1": (
        lambda m: torch.distributed.fsdp.FullyShardedDataParallel(m, device_id=torch.device("cpu")),
        "wrapped in FullyShardedDataParallel",
    ),
    "FSDP2": (fully_sharded, "sharded by fully_shard"),
    "torch.compile": (partial(torch.compile, backend="eager"), "compiled; .* before torch.compile"),
    "Module.compile": (compiled_by_method, "compiled; .* before torch.compile"),
    "script": (torch.jit.script, "a TorchScript module; .* before scripting"),
    "trace": (lambda m: torch.jit.trace(m.eval(), torch.randn(1, 3, 8, 8)), "a TorchScript module"),
}


@pytest.mark.usefixtures("one_process")
@pytest.mark.filterwarnings("ignore")  # torch deprecates some of these wrappers
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("case", WRAPPED)
def test_wrapped_models_are_refused_with_the_way_out(case: str, nested: bool) -> None:
    wrap, message = WRAPPED[case]
    plan = plan_for(small())
    model = wrap(small())
    subject = "inner in the model" if nested else "the model"
    with pytest.raises(IdealGroupsError, match=f"^{subject} is .*{message}"):
        apply(nn.ModuleDict({"inner": model}) if nested else model, plan)


def test_a_model_prepared_for_quantization_is_refused() -> None:
    fused = torch.ao.nn.intrinsic.qat.ConvBn2d(3, 8, 3, qconfig=torch.ao.quantization.default_qat_qconfig)
    with pytest.raises(IdealGroupsError, match="fused for quantization"):
        apply(nn.Sequential(fused), make_plan((make_site("0.bn", 8, 2),)))


def test_a_lazy_model_is_refused_until_it_has_run() -> None:
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d())
    plan = make_plan((make_site("1", 8, 2),))
    with pytest.raises(IdealGroupsError, match=r"0 in the model is a LazyConv2d.*run the model once"):
        apply(model, plan)
    model.eval()(torch.randn(1, 3, 8, 8))
    assert groups_in(apply(model, plan)) == {"1": 2}


def test_a_layer_of_any_class_whose_parameter_has_no_shape_yet_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Identity())
    model[2].scale = nn.UninitializedParameter()
    with pytest.raises(IdealGroupsError, match=r"2 in the model is a Identity.*run the model once"):
        ig.plan(model, torch.randn(4, 3, 8, 8))


def test_something_else_than_a_module_is_refused() -> None:
    with pytest.raises(IdealGroupsError, match=r"expected a torch\.nn\.Module, but got a str"):
        apply("resnet18", make_plan((make_site("1", 8, 2),)))


# --- what is warned about --------------------------------------------------------------------------------------------


def test_trained_running_statistics_are_warned_about_once() -> None:
    model = torchvision.models.resnet18()
    model(torch.randn(2, 3, 32, 32))
    with pytest.warns(UserWarning, match=r"20 normalization layers \(first: bn1\).*expect to retrain") as caught:
        apply(model, plan_for(model))
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_regrouping_a_trained_group_norm_is_warned_about() -> None:
    model = small(nn.GroupNorm(4, 8))
    nn.init.normal_(model[1].bias)
    with pytest.warns(UserWarning, match=r"the normalization layer 1 has trained scales and shifts"):
        apply(model, plan_for(model, {"1": 2}))


class Written(nn.Module):
    """A norm as courses write it: one group with γ and β, or a batch norm with statistics of other names."""

    def __init__(self, over_batch: bool) -> None:
        super().__init__()
        self.over_batch = over_batch
        self.gamma, self.beta = nn.Parameter(torch.ones(1, 8, 1, 1)), nn.Parameter(torch.zeros(1, 8, 1, 1))
        self.register_buffer("moving_mean", torch.zeros(1, 8, 1, 1))
        self.register_buffer("moving_var", torch.ones(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.moving_mean, self.moving_var
        if not self.over_batch or self.training:
            dims = (0, 2, 3) if self.over_batch else (1, 2, 3)
            mean, var = x.mean(dims, keepdim=True), x.var(dims, keepdim=True, correction=0)
        if self.over_batch and self.training:
            self.moving_mean = 0.9 * self.moving_mean + 0.1 * mean.detach()
            self.moving_var = 0.9 * self.moving_var + 0.1 * var.detach()
        return self.gamma * (x - mean) / (var + 1e-5).sqrt() + self.beta


def test_trained_layers_written_by_hand_are_warned_about() -> None:
    """Under whatever names they keep γ, β and their statistics; and not before they are trained."""
    grouped, batch = small(Written(over_batch=False)), small(Written(over_batch=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply(grouped, plan_for(grouped, {"1": 2}))
        apply(batch, plan_for(batch, {"1": 2}))
    nn.init.normal_(grouped[1].beta)
    batch(torch.randn(4, 3, 8, 8))
    with pytest.warns(UserWarning, match=r"the normalization layer 1 has trained scales and shifts"):
        apply(grouped, plan_for(grouped, {"1": 2}))
    with pytest.warns(UserWarning, match=r"the normalization layer 1 has running statistics from training"):
        apply(batch, plan_for(batch, {"1": 2}))


@pytest.mark.parametrize("groups", [2, 4])
def test_fresh_layers_and_unchanged_ones_give_no_warning(groups: int) -> None:
    fresh, zero, trained = small(nn.GroupNorm(2, 8)), small(), small(nn.GroupNorm(groups, 8))
    nn.init.zeros_(zero[1].weight)
    nn.init.normal_(trained[1].bias)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply(fresh, plan_for(fresh, {"1": 4}))
        apply(zero, plan_for(zero, {"1": 4}))
        apply(trained, plan_for(trained, {"1": groups}))


# --- the copy --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_models_that_deepcopy_refuses_are_copied() -> None:
    model = small()
    model[0] = nn.utils.weight_norm(model[0])
    model.cache = [model(torch.randn(2, 3, 8, 8))]
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    model[1].reset_running_stats()
    new = apply(model, plan_for(model))
    new(torch.randn(2, 3, 8, 8)).sum().backward()
    assert new[0].weight_v.grad is not None
    assert model[0].weight_v.grad is None
    assert torch.equal(new.cache[0], model.cache[0])


def test_lazy_models_are_copied() -> None:
    twin = copy_model(nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()))
    assert twin(torch.randn(2, 3, 8, 8)).shape == (2, 4, 6, 6)


def test_a_model_that_cannot_be_copied_can_be_converted_in_place() -> None:
    model = small()
    model.lock = threading.Lock()
    with pytest.raises(IdealGroupsError, match=r"cannot copy the Sequential \(TypeError.*inplace=True"):
        apply(model, plan_for(model))
    assert groups_in(apply(model, plan_for(model), inplace=True)) == {"1": 4}


# --- whole networks --------------------------------------------------------------------------------------------------


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": torchvision.models.resnet18,
    "mobilenet_v2": partial(torchvision.models.mobilenet_v2, width_mult=0.25),
    "convnext_tiny": torchvision.models.convnext_tiny,
    "googlenet": partial(torchvision.models.googlenet, init_weights=False),
    "r3d_18": torchvision.models.video.r3d_18,
    "timm efficientnet": partial(timm.create_model, "efficientnet_b0"),
    "timm resnet with γ = 0": partial(timm.create_model, "resnet10t"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_norm_of_a_real_network_gets_its_own_number(name: str) -> None:
    model = NETWORKS[name]()
    plan = plan_for(model, mixed_groups)
    done = replace_norms(model, plan)
    assert groups_in(done.model) == plan.num_groups
    assert all(why == "layer norm over the last dimension, not over channels" for why in done.left.values())
    assert len(done.left) == sum(type(m) is nn.LayerNorm for m in model.modules())
    before, after = model.state_dict(), done.model.state_dict()
    gone = before.keys() - after.keys()
    assert after.keys() <= before.keys()
    assert all(key.rsplit(".", 1)[-1] in ("running_mean", "running_var", "num_batches_tracked") for key in gone)
    assert all(torch.equal(value, before[key]) for key, value in after.items())


def test_applying_twice_changes_nothing_more() -> None:
    model = small()
    plan = plan_for(model)
    done = replace_norms(apply(model, plan), plan)
    assert done.replaced == {}
    assert done.left == {"1": "has its planned number of groups already"}


def test_the_summary_survives_pickling_with_its_model() -> None:
    done = replace_norms(small(), plan_for(small()))
    again = pickle.loads(pickle.dumps(done))
    assert again.replaced == done.replaced
    assert groups_in(again.model) == {"1": 4}


# --- with real plans -------------------------------------------------------------------------------------------------


def tiny_resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=10)


def test_a_saved_plan_is_applied_to_a_fresh_network(tmp_path: Path) -> None:
    x = torch.randn(4, 3, 32, 32)
    converted, plan = ig.convert(tiny_resnet(), x)
    plan.save(tmp_path / "plan.json")
    fresh = ig.apply(tiny_resnet(), Plan.load(tmp_path / "plan.json"))
    assert groups_in(fresh) == groups_in(converted) == plan.num_groups
    torch.testing.assert_close(fresh(x), converted(x))


def test_a_converted_network_is_planned_alike() -> None:
    x = torch.randn(4, 3, 32, 32)
    converted, plan = ig.convert(tiny_resnet(), x)
    again = ig.plan(converted, x)
    assert {site.name: site.groups_before for site in again.sites} == plan.num_groups
    assert again.num_groups == plan.num_groups


def test_convert_takes_patterns_and_works_in_place() -> None:
    model = tiny_resnet()
    same, plan = ig.convert(model, torch.randn(4, 3, 32, 32), inplace=True, exclude="bn1")
    assert same is model
    assert isinstance(model.bn1, nn.BatchNorm2d)
    assert groups_in(model) == {name: g for name, g in plan.num_groups.items() if name != "bn1"}


def test_sharing_survives_planning() -> None:
    converted, plan = ig.convert(Sharing(), torch.randn(4, 3, 12, 12))
    assert list(plan.num_groups) == ["first.1"]
    assert converted.plain[0].num_groups == plan.num_groups["first.1"]
