"""A converted network can do everything the network could."""

from __future__ import annotations

import copy
import importlib.util
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, BasicStem, Conv3DSimple, VideoResNet

from hand_plans import groups_in, make_plan, make_site, mixed_groups, plan_for
from idealgroups.api import apply
from idealgroups.conversion.norm_layer import norm_layer
from idealgroups.errors import IdealGroupsError
from idealgroups.norms.group_norm_act import GroupNormAct


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (2, 3, 32, 32)
    other_shape: tuple[int, ...] = (1, 3, 48, 40)


CASES = {
    "resnet18": Case(partial(torchvision.models.resnet18, num_classes=10)),
    "mobilenet_v2": Case(partial(torchvision.models.mobilenet_v2, num_classes=10, width_mult=0.25)),
    "convnext": Case(
        partial(
            torchvision.models.ConvNeXt,
            [
                torchvision.models.convnext.CNBlockConfig(16, 32, 1),
                torchvision.models.convnext.CNBlockConfig(32, None, 1),
            ],
            num_classes=10,
        )
    ),
    "video resnet": Case(
        partial(VideoResNet, BasicBlock, [Conv3DSimple] * 4, [1, 1, 1, 1], BasicStem, num_classes=10),
        (1, 3, 4, 16, 16),
        (2, 3, 6, 20, 24),
    ),
    "timm efficientnet_b0": Case(partial(timm.create_model, "efficientnet_b0", num_classes=10)),
    "timm resnet10t": Case(partial(timm.create_model, "resnet10t", num_classes=10)),
    "timm densenet": Case(partial(timm.create_model, "densenet121", num_classes=10, block_config=(2, 2))),
}
each_network = pytest.mark.parametrize("name", CASES)


@cache
def _converted(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = CASES[name].build().eval()
    return apply(model, plan_for(model, mixed_groups))


def converted(name: str) -> nn.Module:
    return copy.deepcopy(_converted(name))


def images(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@each_network
def test_it_runs_at_other_sizes_and_each_sample_by_itself(name: str) -> None:
    model, case = converted(name), CASES[name]
    for shape in (case.shape, case.other_shape):
        x = images(shape)
        y = model(x)
        assert y.shape == (shape[0], 10)
        assert y.isfinite().all()
        torch.testing.assert_close(model(x[:1]), y[:1], rtol=1e-3, atol=1e-4)


@each_network
def test_it_is_copied_pickled_saved_and_loaded(name: str) -> None:
    model, x = converted(name), images(CASES[name].shape)
    y = model(x)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = CASES[name].build().eval()
    fresh = apply(fresh, plan_for(fresh, mixed_groups))
    fresh.load_state_dict(torch.load(file), strict=True)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), fresh):
        assert groups_in(twin) == groups_in(model)
        torch.testing.assert_close(twin(x), y)


@each_network
def test_a_training_step_has_finite_gradients_everywhere(name: str) -> None:
    model = converted(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = nn.functional.cross_entropy(model(images(CASES[name].shape)), torch.arange(CASES[name].shape[0]))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    optimizer.step()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())


@each_network
@pytest.mark.filterwarnings("ignore")  # torch's own deprecations while it compiles
def test_it_compiles(name: str) -> None:
    model, x = converted(name), images(CASES[name].shape)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))


@each_network
@pytest.mark.filterwarnings("ignore")
def test_it_exports(name: str) -> None:
    model, x = converted(name), images(CASES[name].shape)
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), model(x))


@each_network
def test_it_is_traced_by_fx_where_it_was_before(name: str) -> None:
    try:
        torch.fx.symbolic_trace(CASES[name].build().eval())
    except Exception:
        pytest.skip(f"torch.fx cannot trace {name} before surgery either")
    model, x = converted(name), images(CASES[name].shape)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), model(x))


def test_a_traced_network_can_be_converted_itself() -> None:
    traced = torch.fx.symbolic_trace(torchvision.models.resnet18(num_classes=10).eval())
    plan = plan_for(traced)
    model = apply(traced, plan)
    assert groups_in(model) == plan.num_groups
    assert model(images((1, 3, 32, 32))).shape == (1, 10)


@each_network
def test_it_runs_under_autocast(name: str) -> None:
    model, x = converted(name), images(CASES[name].shape)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    assert y.isfinite().all()
    expected = model(x)
    assert (y - expected).norm() < 0.2 * expected.norm()


@pytest.mark.parametrize("name", ["resnet18", "video resnet", "timm efficientnet_b0"])
def test_half_precision_networks_run(name: str) -> None:
    model = CASES[name].build().eval().to(torch.bfloat16)
    new = apply(model, plan_for(model, mixed_groups))
    assert new(images(CASES[name].shape).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "timm efficientnet_b0", "timm densenet", "video resnet"])
def test_channels_last_is_kept_in_weights_and_activations(name: str) -> None:
    layout = torch.channels_last_3d if name == "video resnet" else torch.channels_last
    model = CASES[name].build().eval().to(memory_format=layout)
    new = apply(model, plan_for(model, mixed_groups))
    weights = [m.weight for m in new.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    assert all(weight.is_contiguous(memory_format=layout) for weight in weights)
    lost: list[str] = []
    for layer, module in new.named_modules():
        if isinstance(module, nn.GroupNorm):

            def check(_: nn.Module, args: tuple[Tensor], y: Tensor, layer: str = layer) -> None:
                if args[0].is_contiguous(memory_format=layout) and not y.is_contiguous(memory_format=layout):
                    lost.append(layer)

            module.register_forward_hook(check)
    x = images(CASES[name].shape)
    torch.testing.assert_close(new(x.to(memory_format=layout)), new(x), rtol=1e-3, atol=1e-4)
    assert lost == []


@pytest.mark.parametrize("name", ["resnet18", "timm densenet"])
@pytest.mark.filterwarnings("ignore")
def test_it_exports_to_onnx(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("onnxscript") is None:
        pytest.skip("onnxscript is not installed, which torch.onnx needs")
    import onnx
    from onnx.reference import ReferenceEvaluator

    model, x = converted(name), images((1, 3, 32, 32))
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    loaded = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(loaded)
    feed = {loaded.graph.input[0].name: x.numpy()}
    (y,) = ReferenceEvaluator(loaded).run(None, feed)
    torch.testing.assert_close(torch.from_numpy(y), model(x).detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script.*:FutureWarning", "ignore:.*torch.jit.script.*:DeprecationWarning"
)
def test_our_own_layer_can_be_scripted() -> None:
    layer = GroupNormAct(2, 8, act=nn.SiLU())
    x = images((2, 8, 4, 4))
    torch.testing.assert_close(torch.jit.script(layer)(x), layer(x))


# --- one layer alone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_channels", [1, 2, 4, 7])
def test_layers_of_few_channels_and_one_position_work(num_channels: int) -> None:
    model = nn.Sequential(nn.Linear(3, num_channels), nn.BatchNorm1d(num_channels))
    new = apply(model, plan_for(model, {"1": 1}))
    y = new(torch.randn(5, 3))
    assert y.isfinite().all()
    assert num_channels == 1 or y.any()


# --- building with a plan --------------------------------------------------------------------------------------------


BUILDERS: dict[str, tuple[Callable[..., nn.Module], type[nn.Module] | None]] = {
    "torchvision resnet18": (partial(torchvision.models.resnet18, num_classes=10), None),
    "torchvision resnet50": (partial(torchvision.models.resnet50, num_classes=10), None),
    "torchvision mobilenet_v2": (partial(torchvision.models.mobilenet_v2, num_classes=10), None),
    "timm resnet14t": (partial(timm.create_model, "resnet14t", num_classes=10), None),
    "timm efficientnet_b0": (partial(timm.create_model, "efficientnet_b0", num_classes=10), nn.SiLU),
    "timm densenet121": (partial(timm.create_model, "densenet121", num_classes=10), nn.ReLU),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_network_built_with_a_plan_equals_the_converted_one(name: str) -> None:
    build, act_layer = BUILDERS[name]
    torch.manual_seed(3)
    usual = build().eval()
    plan = plan_for(usual, mixed_groups)
    convertee = apply(usual, plan)
    factory = norm_layer(plan, build, act_layer=act_layer)
    torch.manual_seed(3)
    built = build(norm_layer=factory).eval()
    assert groups_in(built) == groups_in(convertee) == plan.num_groups
    assert list(built.state_dict()) == list(convertee.state_dict())
    assert [type(m) for m in built.modules() if not m._modules] == [
        type(m) for m in convertee.modules() if not m._modules
    ]
    x = images((2, 3, 32, 32))
    torch.testing.assert_close(built(x), convertee(x))


def test_the_trial_draws_no_random_numbers() -> None:
    plan = plan_for(torchvision.models.resnet18())
    before = torch.get_rng_state()
    norm_layer(plan, torchvision.models.resnet18)
    assert torch.equal(before, torch.get_rng_state())


def test_a_factory_serves_one_network_and_checks_each_layer() -> None:
    plan = plan_for(torchvision.models.resnet18())
    factory = norm_layer(plan, torchvision.models.resnet18)
    with pytest.raises(
        IdealGroupsError, match=r"call 2 .* should make layer1\.0\.bn1 with 64 channels, but asks for 256"
    ):
        torchvision.models.resnet50(norm_layer=factory)
    factory = norm_layer(plan, torchvision.models.resnet18)
    torchvision.models.resnet18(norm_layer=factory)
    with pytest.raises(IdealGroupsError, match="more than the 20 times of one network"):
        torchvision.models.resnet18(norm_layer=factory)


def make_net(norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm_layer(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))


def test_layers_that_are_not_made_with_norm_layer_are_named() -> None:
    with pytest.raises(
        IdealGroupsError, match=r"makes 3 \(a BatchNorm2d\) without calling norm_layer.*idealgroups\.apply"
    ):
        norm_layer(plan_for(make_net()), make_net)


def test_layers_without_a_number_are_named() -> None:
    def build(norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3), norm_layer(8), nn.Conv2d(8, 8, 3), norm_layer(8))

    with pytest.raises(IdealGroupsError, match="no number for 1, which build makes"):
        norm_layer(plan_for(build(), {"3": 4}), build)


def test_a_plan_for_another_network_is_refused_when_building() -> None:
    with pytest.raises(IdealGroupsError, match="what build makes has no bn7"):
        norm_layer(make_plan((make_site("bn7", 8, 2),)), make_net)
    with pytest.raises(IdealGroupsError, match="1 has 16 channels there and 8 in what build makes"):
        norm_layer(make_plan((make_site("1", 16, 2),)), make_net)


def test_a_missing_activation_is_asked_for() -> None:
    build, _ = BUILDERS["timm densenet121"]
    with pytest.raises(IdealGroupsError, match="an activation in it; name the activation with act_layer="):
        norm_layer(plan_for(build()), build)


def test_layers_that_a_builder_throws_away_do_not_count() -> None:
    def build(norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Module:
        norm_layer(4)
        return nn.Sequential(norm_layer(8))

    plan = plan_for(build(), {"0": 2})
    assert groups_in(build(norm_layer=norm_layer(plan, build))) == {"0": 2}
