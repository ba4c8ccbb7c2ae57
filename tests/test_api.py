"""Plans of real and difficult networks, through the public functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import idealgroups as ig
import networks
from idealgroups.repeats import repeat
from idealgroups.synthetic import synthetic
from idealgroups.theory.formulas import MIN_GROUP_ELEMENTS, divisors
from idealgroups.theory.solve import SLACK
from idealgroups.theory.strategies import BASELINES

Untouched = Callable[[nn.Module, Callable[[], Any]], Any]


def train_one_step(model: nn.Module, inputs: Any) -> None:
    model.train()
    output = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    tensors = [t for t in _leaves(output) if t.is_floating_point()]
    sum(t.square().mean() for t in tensors).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(g.isfinite().all() for g in gradients)
    torch.optim.SGD(model.parameters(), 0.01).step()


def _leaves(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = (
        value.values()
        if isinstance(value, dict)
        else value
        if isinstance(value, list | tuple)
        else vars(value).values()
    )
    return [t for item in items for t in _leaves(item)]


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        models = pytest.importorskip("torchvision.models")
        return models.get_model(name, weights=None)

    return build


def _timm(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        return pytest.importorskip("timm").create_model(name, pretrained=False, **arguments)

    return build


REAL = {
    "resnet18": (_torchvision("resnet18"), (4, 3, 64, 64), 20),
    "mobilenet_v2": (_torchvision("mobilenet_v2"), (2, 3, 64, 64), 52),
    "densenet121": (_torchvision("densenet121"), (2, 3, 64, 64), 121),
    "convnext_tiny": (_torchvision("convnext_tiny"), (2, 3, 64, 64), 5),
    "r3d_18": (_torchvision("r3d_18"), (2, 3, 4, 32, 32), 20),
    "timm resnet18, zero γ": (_timm("resnet18", zero_init_last=True), (4, 3, 64, 64), 20),
    "timm resnet50_gn": (_timm("resnet50_gn"), (2, 3, 64, 64), 53),
    "timm efficientnet_b0, norm and activation": (_timm("efficientnet_b0"), (2, 3, 64, 64), 49),
    "unet": (networks.UNet, (2, 1, 32, 32), 5),
    "video": (networks.Video, (2, 3, 4, 16, 16), 2),
    "mlp": (networks.mlp, (32, 20), 3),
    "mlp with channel-wise layer norm": (lambda: networks.mlp(lambda width: nn.GroupNorm(1, width), 48), (32, 20), 3),
}


SLOW = ("densenet121", "convnext_tiny", "r3d_18")


def test_how_far_the_trend_may_fall_depends_on_the_optimizer_unless_it_is_given() -> None:
    model, x = networks.plain(depth=6), torch.randn(4, 3, 16, 16)
    one = {optimizer: ig.plan(model, x, optimizer=optimizer).one_group_trend for optimizer in ("sgd", "dp-sgd")}
    assert one["sgd"] is not None
    assert one["dp-sgd"] is not None
    for strategy in ("isometric", "uniform"):
        assert ig.plan(model, x, strategy=strategy).lowest_trend == min(0, one["sgd"]) - 1
        private = ig.plan(model, x, strategy=strategy, optimizer="dp-sgd")
        assert private.lowest_trend == min(0, one["dp-sgd"])
        assert private.trend_after >= private.lowest_trend
    given = ig.plan(model, x, strategy=ig.Isometric(slack=0.5), optimizer="dp-sgd")
    assert given.lowest_trend == min(0, one["dp-sgd"]) - 0.5
    assert given.strategy == "isometric-0.5"


@pytest.mark.parametrize("strategy", ["block", *BASELINES, "fixed-8", "group-size-4"])
def test_a_plan_says_that_it_is_the_same_for_every_optimizer(strategy: str) -> None:
    model, x = networks.plain(), torch.randn(4, 3, 8, 8)
    said = f"optimizer='dp-sgd' did not change the groups of {strategy}, which follow from shapes alone"
    plans = {optimizer: ig.plan(model, x, strategy=strategy, optimizer=optimizer) for optimizer in ("sgd", "dp-sgd")}
    assert plans["sgd"].num_groups == plans["dp-sgd"].num_groups
    assert said in " ".join(str(plans["dp-sgd"]).split())
    assert "did not change the groups" not in " ".join(str(plans["sgd"]).split())
    assert said.replace("'", "&#x27;") in plans["dp-sgd"]._repr_html_()


@pytest.mark.parametrize("strategy", ["isometric", "uniform", "uniform-group-size", ig.Isometric(slack=0.5)])
def test_a_plan_that_depends_on_the_optimizer_says_nothing_of_the_kind(strategy: str) -> None:
    made = ig.plan(networks.plain(), torch.randn(4, 3, 8, 8), strategy=strategy, optimizer="dp-sgd")
    assert "did not change" not in str(made)


def test_comparisons_and_repeats_name_the_strategies_that_do_not_depend_on_the_optimizer() -> None:
    model, x = networks.plain(), torch.randn(4, 3, 8, 8)
    compared = ig.compare(model, x, ["isometric", "block", "layer"], optimizer="dp-sgd")
    assert "did not change the groups of block, layer, which" in " ".join(str(compared).split())
    repeated = repeat(model, lambda seed: x, 2, strategy="sqrt", optimizer="dp-sgd")
    assert "did not change the groups of sqrt, which" in " ".join(str(repeated).split())


@pytest.mark.parametrize("strategy", ["isometric", "block"])
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"optimizer": "lamb"}, "there is no optimizer 'lamb'; choose one of the words sgd, dp-sgd, adam"),
        ({"seed": -1}, "seed must be an integer from 0"),
    ],
)
def test_arguments_are_checked_whether_or_not_the_strategy_needs_them(
    strategy: str, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(ig.IdealGroupsError, match=message):
        ig.plan(networks.plain(), torch.randn(4, 3, 8, 8), strategy=strategy, **keywords)


@pytest.mark.parametrize("optimizer", ["sgd", "dp-sgd", "adam"])
def test_one_layer_has_no_trend_that_could_fall(optimizer: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    planned = ig.plan(model, torch.randn(2, 3, 8, 8), optimizer=optimizer)
    assert planned.after is not None
    assert planned.after.trend == 0


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in REAL])
def test_real_networks_plan_convert_and_train(untouched: Untouched, name: str) -> None:
    build, shape, layers = REAL[name]
    torch.manual_seed(0)
    model, x = build(), synthetic(shape)
    plan = untouched(model, lambda: ig.plan(model, x))
    assert len(plan.sites) == layers
    assert plan.not_understood == ()
    for site in plan.sites:
        assert site.num_channels % site.num_groups == 0
        assert site.group_elements >= MIN_GROUP_ELEMENTS or (site.num_groups == 1 and site.note)
        finer = [g for g in divisors(site.num_channels) if g > site.num_groups]
        assert site.num_groups <= site.ideal <= (finer[0] if finer else site.num_groups)  # the divisor below
    one_group = ig.measure(model, x, plan=ig.plan(model, x, strategy="layer")).trend
    assert plan.lowest_trend == pytest.approx(min(0, one_group) - SLACK, abs=1e-3)
    assert plan.trend_after >= plan.lowest_trend
    assert plan.seconds > 0
    converted = ig.apply(model, plan)
    assert sorted(m.num_groups for m in converted.modules() if isinstance(m, nn.GroupNorm)) == sorted(
        plan.num_groups.values()
    )
    # What was measured on the scratch copy is what the converted network does.
    measured = ig.measure(converted, x)
    assert measured.trend == pytest.approx(plan.trend_after, abs=0.02)
    assert measured.spread == pytest.approx(plan.spread_after, abs=0.02)
    train_one_step(converted, x)


def test_same_seed_same_plan() -> None:
    model, x = networks.plain(), synthetic((4, 3, 16, 16))
    first, second = ig.plan(model, x, seed=3), ig.plan(model, x, seed=3)
    assert first.sites == second.sites
    assert (first.budget, first.trend_after) == (second.budget, second.trend_after)


def test_planning_with_groups_or_batch_norm_is_the_same_but_for_before() -> None:
    batch, x = networks.plain(), synthetic((4, 3, 16, 16))
    plan = ig.plan(batch, x)
    again = ig.plan(ig.apply(batch, plan), x)
    assert again.num_groups == plan.num_groups
    assert [s.groups_before for s in plan.sites] == [None] * 4
    assert [s.groups_before for s in again.sites] == list(plan.num_groups.values())
    assert again.trend_before == pytest.approx(again.trend_after, abs=1e-3)


def test_convert_is_plan_and_apply() -> None:
    model, x = networks.UNet(), synthetic((2, 1, 32, 32))
    converted, plan = ig.convert(model, x)
    assert plan.num_groups == ig.plan(model, x).num_groups
    assert {n: m.num_groups for n, m in converted.named_modules() if isinstance(m, nn.GroupNorm)} == plan.num_groups
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    same, _ = ig.convert(model, x, inplace=True)
    assert same is model


@pytest.mark.parametrize("strategy", ig.STRATEGIES)
def test_every_strategy_gives_a_working_network(strategy: str) -> None:
    model, x = networks.UNet(), synthetic((2, 1, 32, 32))
    converted, plan = ig.convert(model, x, strategy=strategy)
    assert plan.strategy == strategy
    assert (plan.budget is not None) == (strategy in ("isometric",))
    train_one_step(converted, x)


def test_existing_methods_give_the_numbers_people_type() -> None:
    model, x = networks.mlp(width=48), torch.randn(16, 20)
    groups = {s: set(ig.plan(model, x, strategy=s).num_groups.values()) for s in BASELINES}
    assert groups == {
        "fixed-32": {12},  # 32 does not divide 48, 24 would leave two elements a group
        "gcd-32": {12},
        "group-size-16": {3},
        "min-32-quarter": {12},
        "sqrt": {6},
        "layer": {1},
        "instance": {12},
    }


def test_inputs_as_a_dict_and_outputs_as_a_dataclass() -> None:
    model = networks.Structured()
    inputs = {"pixels": synthetic((2, 3, 16, 16)), "mask": torch.ones(2, 1, 16, 16)}
    plan = ig.plan(model, inputs)
    assert plan.input == "{pixels: 2x3x16x16, mask: 2x1x16x16}"
    assert len(plan.sites) == 4
    converted, _ = ig.convert(model, inputs)
    converted(**inputs)


def test_a_loss_of_ones_own() -> None:
    model, x, y = networks.plain(), synthetic((4, 3, 16, 16)), torch.tensor([0, 1, 2, 3])
    plan = ig.plan(model, x, loss=lambda output: nn.functional.cross_entropy(output, y))
    assert len(plan.sites) == 4


def test_what_was_not_understood_is_named() -> None:
    plan = ig.plan(networks.Functional(), synthetic((2, 3, 16, 16)))
    assert [(miss.name, "F.group_norm" in miss.why) for miss in plan.not_understood] == [("block", True)]
    plan = ig.plan(networks.Twice(), synthetic((2, 3, 16, 16)))
    assert [site.name for site in plan.sites] == ["norm"]
    assert [(miss.name, "did not run" in miss.why) for miss in plan.not_understood] == [("unused", True)]
    assert "not understood: unused did not run" in str(plan)


class Odd(nn.Module):
    """A norm of 4 channels on 1×1 maps, of 1 channel, and of a prime number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.four = nn.Sequential(nn.Linear(20, 4), nn.BatchNorm1d(4))
        self.one = nn.Sequential(nn.Linear(20, 1), nn.BatchNorm1d(1))
        self.prime = nn.Sequential(nn.Linear(20, 37), nn.BatchNorm1d(37))
        self.map = nn.Sequential(nn.Conv2d(20, 64, 1), nn.BatchNorm2d(64))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.four(x), self.one(x), self.prime(x), self.map(x[:, :, None, None])


def test_awkward_widths_give_a_working_layer_and_say_what_is_wrong() -> None:
    model, x = Odd(), torch.randn(32, 20)
    for strategy in ("isometric", "instance", "fixed-32", "block"):
        with pytest.warns(
            UserWarning, match=r"one\.1 stays as it is because it has 1 value to normalize: .* a constant"
        ):
            converted, plan = ig.convert(model, x, strategy=strategy)
        assert isinstance(converted.one[1], nn.BatchNorm1d)
        sites = {site.name: site for site in plan.sites}
        assert sites["four.1"].num_groups == 1
        assert sites["prime.1"].num_groups == 1
        assert sites["map.1"].group_elements >= MIN_GROUP_ELEMENTS
        outputs = converted(x)
        assert all(outputs[i].abs().max() > 0 for i in (0, 2, 3))
        train_one_step(converted, x)


def test_a_batch_of_one_with_one_position_can_be_planned() -> None:
    assert ig.plan(networks.mlp(), torch.randn(1, 20)).num_groups.keys() == {"1", "4", "7"}


class TimeEmbedded(nn.Module):
    """As in diffusion U-Nets: an embedding is added to every channel, constant over positions, in front of a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.embed = nn.Linear(4, 16)
        self.norm = nn.GroupNorm(4, 16)
        self.conv2 = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.conv2(nn.functional.silu(self.norm(self.conv1(x) + self.embed(t)[:, :, None, None])))


def test_a_plan_never_erases_what_is_constant_over_positions() -> None:
    model, inputs = TimeEmbedded(), (torch.randn(4, 3, 16, 16), torch.randn(4, 4))
    for strategy in ("isometric", "uniform"):
        assert max(ig.plan(model, inputs, strategy=strategy).num_groups.values()) <= 8
    erased = ig.measure(model, inputs, plan=ig.plan(model, inputs, strategy="instance"))
    kept = ig.measure(model, inputs, plan=ig.plan(model, inputs))
    of = [{layer.name: layer.relative for layer in m.layers}.get("embed.weight", 0.0) for m in (erased, kept)]
    assert of[0] < 1e-5 < of[1]


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: ig.plan(nn.Linear(3, 3), torch.randn(2, 3)), "Linear has no normalization layer"),
        (lambda: ig.plan(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), torch.randn(2, 3)), "no normalization layer"),
        (lambda: ig.plan(networks.plain(), torch.randn(2, 3, 8, 8), strategy="isometrc"), "did you mean isometric"),
        (lambda: ig.plan(networks.plain(), torch.randn(2, 4, 8, 8)), r"0.0 \(Conv2d\) takes 3 channels"),
        (lambda: ig.plan(networks.plain().to("meta"), torch.randn(2, 3, 8, 8)), "meta device"),
        (lambda: ig.plan("resnet50", torch.randn(2, 4, 8, 8)), "torch.nn.Module"),
        (
            lambda: ig.measure(networks.plain(), torch.randn(2, 3, 8, 8), plan="plan.json"),
            "a Plan is needed, not a str",
        ),
        (
            lambda: ig.measure(
                networks.plain(24), torch.randn(2, 3, 8, 8), plan=ig.plan(networks.plain(), torch.randn(2, 3, 8, 8))
            ),
            "0.1.*16.*24|0.1.*24.*16",
        ),
    ],
)
def test_errors_say_what_to_do(work: Callable[[], Any], message: str) -> None:
    with pytest.raises(ig.IdealGroupsError, match=message):
        work()


def test_measure_with_a_plan_measures_the_converted_model(untouched: Untouched) -> None:
    model, x = networks.plain(), synthetic((4, 3, 16, 16))
    plan = ig.plan(model, x)
    planned = untouched(model, lambda: ig.measure(model, x, plan=plan))
    assert planned.trend == pytest.approx(plan.trend_after, abs=1e-6)
    assert planned.layers[0].name == "0.0.weight"
    assert "trend" in str(planned)


def test_fully_connected_layers_get_groups_of_128_elements_or_one_group() -> None:
    """Their channels differ by chance alone: small groups would take out nothing but signal."""
    x = torch.randn(32, 20, generator=torch.Generator().manual_seed(0))
    for strategy in ("isometric", "uniform", "block"):
        for width, most in ((96, 1), (512, 4)):
            made = ig.plan(networks.mlp(width=width), x, strategy=strategy)
            assert all(groups <= most for groups in made.num_groups.values()), strategy
    assert max(ig.plan(networks.mlp(width=512), x).num_groups.values()) > 1
