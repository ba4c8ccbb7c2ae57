"""Differential privacy with Opacus: batch norm mixes samples and is not allowed, so converted networks must do."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable

import pytest
import timm.layers as tl
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import idealgroups as ig
from hand_plans import groups_in, plan_for
from idealgroups.api import apply

pytest.importorskip("opacus", reason="Opacus is not installed: pip install idealgroups[dp]")
from opacus import GradSampleModule, PrivacyEngine
from opacus.validators import ModuleValidator

pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG turned off:UserWarning"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),
    pytest.mark.filterwarnings("ignore:Optimal order is the:UserWarning"),
]


def digits(count: int, size: int) -> TensorDataset:
    """Scikit-learn's handwritten digits as RGB images."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    x = torch.tensor(data.images[:count], dtype=torch.float32)[:, None] / 8 - 1
    x = nn.functional.interpolate(x, size=(size, size), mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    return TensorDataset(x, torch.tensor(data.target[:count]))


def out_of_place(model: nn.Module) -> nn.Module:
    """Without ``x += y`` and in-place activations, which the backward hooks of Opacus do not allow in any network."""
    traced = torch.fx.symbolic_trace(model)
    for node in traced.graph.nodes:
        if node.target is operator.iadd:
            node.target = operator.add
    for module in traced.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    traced.recompile()
    return traced


def train_privately(model: nn.Module, data: TensorDataset, *, lr: float, epochs: int = 1, **settings: object) -> float:
    """Train with DP-SGD and return the privacy budget ε that was spent."""
    engine = PrivacyEngine(accountant="rdp")
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    loader = DataLoader(data, batch_size=settings.pop("batch_size", 16))
    model, optimizer, loader = engine.make_private(
        module=model, optimizer=optimizer, data_loader=loader, max_grad_norm=1.0, **settings
    )
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            assert loss.isfinite()
    return float(engine.get_epsilon(1e-5))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hooks", "ew"])
def test_a_converted_resnet18_is_valid_and_trains(mode: str) -> None:
    model = torchvision.models.resnet18(num_classes=10)
    assert not ModuleValidator.is_valid(model)
    model = apply(model, plan_for(model))
    assert ModuleValidator.validate(model, strict=True) == []
    if mode == "hooks":
        model = out_of_place(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    epsilon = train_privately(model, digits(24, 32), lr=0.05, batch_size=8, noise_multiplier=1.0, grad_sample_mode=mode)
    assert 0 < epsilon < 50
    assert all(p.isfinite().all() and not torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_converted_network_learns_privately() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 36, 3, stride=2, padding=1), nn.BatchNorm2d(36), nn.ReLU(),
        nn.Flatten(), nn.Linear(36 * 4, 10),
    )  # fmt: skip
    data = digits(1797, 8)
    x, y = data.tensors
    model, _ = ig.convert(model, x[:32])
    train_privately(
        model,
        TensorDataset(x[:1500], y[:1500]),
        lr=0.5,
        epochs=4,
        batch_size=128,
        noise_multiplier=1.0,
        poisson_sampling=True,
    )
    accuracy = (model.eval()(x[1500:]).argmax(-1) == y[1500:]).float().mean()
    assert accuracy > 0.6  # 0.1 is chance


def test_a_network_that_is_private_already_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(8, 8))
    plan = plan_for(model, {"1": 2})
    with pytest.raises(ig.IdealGroupsError, match=r"made private by Opacus.*before make_private"):
        ig.apply(GradSampleModule(model), plan)


# --- the cases of Opacus's own tests ---------------------------------------------------------------------------------


def test_mobilenet_v3_becomes_valid_and_keeps_its_eps() -> None:
    model = torchvision.models.mobilenet_v3_small()
    new = apply(model, plan_for(model))
    assert not ModuleValidator.is_valid(model)
    assert ModuleValidator.is_valid(new)
    assert not ModuleValidator.is_valid(new.eval())
    assert {m.eps for m in new.modules() if isinstance(m, nn.GroupNorm)} == {1e-3}


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm2d(4),
        nn.BatchNorm3d(4),
        nn.SyncBatchNorm(4),
        nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.InstanceNorm3d(4, affine=True, track_running_stats=True),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_each_kind_becomes_valid(norm: nn.Module) -> None:
    assert not ModuleValidator.is_valid(norm)
    new = apply(norm, plan_for(norm, {"": 2}))
    assert type(new) is nn.GroupNorm
    assert ModuleValidator.is_valid(new)


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_any_number_of_groups_can_be_asked_for(groups: int) -> None:
    model = nn.Sequential(OrderedDict(fc=nn.Linear(4, 8), bn=nn.BatchNorm2d(16)))
    new = apply(model, plan_for(model, {"bn": groups}))
    assert groups_in(new) == {"bn": groups}
    assert isinstance(model.bn, nn.BatchNorm2d)
    assert new.fc is not model.fc


# --- what its fixer does wrong ---------------------------------------------------------------------------------------


def test_scale_shift_and_eps_are_kept() -> None:
    norm = nn.BatchNorm2d(8, eps=0.5)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    new = apply(norm, plan_for(norm, {"": 2}))
    assert new.eps == 0.5
    assert torch.equal(new.weight, norm.weight)
    assert torch.equal(new.bias, norm.bias)


def test_a_shared_batch_norm_is_replaced_at_every_parent() -> None:
    norm = nn.BatchNorm2d(8)
    model = nn.ModuleList([nn.Sequential(nn.Conv2d(3, 8, 1), norm), nn.Sequential(nn.Conv2d(8, 8, 1), norm)])
    new = apply(model, plan_for(model))
    assert new[0][1] is new[1][1]
    assert ModuleValidator.is_valid(new)


class PlainSubclass(nn.BatchNorm2d):
    pass


@pytest.mark.parametrize("norm", [PlainSubclass(8), tl.BatchNormAct2d(8)], ids=lambda norm: type(norm).__name__)
def test_subclasses_are_not_overlooked(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), norm)
    new = apply(model, plan_for(model))
    assert isinstance(new[1], nn.GroupNorm)


@pytest.mark.parametrize("width", [4, 7])
def test_a_few_channels_without_positions_still_learn(width: int) -> None:
    model = nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.Linear(width, 2))
    x = torch.randn(16, 6)
    new, plan = ig.convert(model, x)
    assert plan.num_groups == {"1": 1}
    hidden = new[:2](x)
    assert hidden.std(0).min() > 0.1
    new(x)[:, 0].sum().backward()
    assert new[0].weight.grad is not None
    assert new[0].weight.grad.norm() > 1e-3


@pytest.mark.parametrize("width", [24, 36, 7, 50])
def test_no_width_is_too_odd(width: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
    new, _ = ig.convert(model, torch.randn(4, 3, 8, 8))
    assert ModuleValidator.is_valid(new)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8, affine=False), nn.BatchNorm2d(8).requires_grad_(False)])
def test_samples_do_not_mix_even_where_the_validator_does_not_look(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU())
    assert ModuleValidator.is_valid(model)
    new = apply(model, plan_for(model)).train()
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(new(x)[:1], new(x[:1]))


def per_sample_gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """One backward pass a sample."""
    rows: dict[str, list[Tensor]] = {}
    for sample in x.split(1):
        model.zero_grad()
        model(sample).square().sum().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None
            rows.setdefault(name, []).append(p.grad.clone())
    return {name: torch.stack(row) for name, row in rows.items()}


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda c: tl.BatchNormAct2d(c, act_layer=nn.SiLU, inplace=False)])
def test_opacus_finds_the_right_gradient_of_every_sample(norm: Callable[[int], nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), norm(8), nn.Conv2d(8, 4, 3))
    model = apply(model, plan_for(model))
    x = torch.randn(3, 3, 7, 7)
    expected = per_sample_gradients(model, x)
    model.zero_grad()
    private = GradSampleModule(model, loss_reduction="sum")
    private(x).square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad_sample, expected[name], rtol=1e-4, atol=1e-4)
