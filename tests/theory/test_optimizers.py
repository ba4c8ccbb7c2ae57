"""What the steps of SGD, DP-SGD and Adam do to each layer, by real steps of real optimizers on real labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import idealgroups as ig
from experiments.study.networks import resnet
from idealgroups.results import Plan
from idealgroups.theory.line import trend

RATE = 1e-3


@pytest.fixture(scope="module")
def base() -> nn.Module:
    torch.manual_seed(0)
    return resnet((32, 64, 128), blocks=2)(3, 10, 16)


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    draws = [torch.randn(32, 3, 16, 16, generator=generator) for _ in range(8)]
    return [(x, torch.randint(10, (32,), generator=generator)) for x in draws]


@pytest.fixture(scope="module")
def plans(base: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> dict[int, Plan]:
    with ig.Survey(base, batches[0][0]) as survey:
        return {groups: survey.plan(f"fixed-{groups}") for groups in (1, 32)}


def relative_steps(
    network: nn.Module, optimizer: torch.optim.Optimizer, batches: list[tuple[Tensor, Tensor]], names: list[str]
) -> np.ndarray:
    """‖ΔW‖/‖W‖ of every layer over one step for each batch, (L,)."""
    weights = dict(network.named_parameters())
    before = {name: weights[name].detach().clone() for name in names}
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(network.train()(x), y).backward()
        optimizer.step()
    return np.array([float((weights[name].detach() - before[name]).norm() / before[name].norm()) for name in names])


def in_line(plan: Plan) -> list[str]:
    assert plan.after is not None
    return [layer.name for layer in plan.after.layers if layer.in_line]


def log_change(
    kind: type[torch.optim.Optimizer], base: nn.Module, plans: dict[int, Plan], batches: list[tuple[Tensor, Tensor]]
) -> np.ndarray:
    """log of the relative step with 32 groups over that with one, for every layer of the line."""
    names = in_line(plans[1])
    steps = {}
    for groups, plan in plans.items():
        network = ig.apply(base, plan)
        steps[groups] = relative_steps(network, kind(network.parameters(), lr=RATE), batches, names)
    return np.log(steps[32] / steps[1])


@pytest.fixture(scope="module")
def sgd_change(base: nn.Module, plans: dict[int, Plan], batches: list[tuple[Tensor, Tensor]]) -> np.ndarray:
    """The change over eight steps, which that of Adam is held against."""
    return log_change(torch.optim.SGD, base, plans, batches)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_of_sgd_moves_a_layer_by_the_rate_times_u(
    base: nn.Module, plans: dict[int, Plan], momentum: float
) -> None:
    x = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    y = torch.arange(16) % 10
    for plan in plans.values():
        network = ig.apply(base, plan)
        seen = ig.measure(network, x, loss=lambda output: F.cross_entropy(output, y))
        layers = {layer.name: layer.relative for layer in seen.gradients.layers}
        optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=momentum)
        steps = relative_steps(network, optimizer, [(x, y)], list(layers))
        assert steps == pytest.approx(RATE * np.array(list(layers.values())), rel=1e-3)


def test_with_sgd_the_groups_tilt_the_steps_as_the_line_says(
    base: nn.Module, plans: dict[int, Plan], batches: list[tuple[Tensor, Tensor]]
) -> None:
    """The line knows no labels; the steps are those of the cross-entropy of real ones."""
    change = log_change(torch.optim.SGD, base, plans, batches[:1])
    before, after = plans[1].after, plans[32].after
    assert before is not None
    assert after is not None
    assert after.trend - before.trend < -0.8
    assert trend(change) == pytest.approx(trend(after.line - before.line), abs=0.4)
    assert np.corrcoef(change, after.line - before.line)[0, 1] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_with_adam_the_groups_do_not_change_the_steps(
    kind: type[torch.optim.Optimizer],
    base: nn.Module,
    plans: dict[int, Plan],
    batches: list[tuple[Tensor, Tensor]],
    sgd_change: np.ndarray,
) -> None:
    """The first step is η√n/‖W‖ in every layer, whatever the gradient is; eight steps differ by how they add up."""
    names = in_line(plans[1])
    network = ig.apply(base, plans[32])
    weights = dict(network.named_parameters())
    expected = [RATE * weights[name].numel() ** 0.5 / float(weights[name].detach().norm()) for name in names]
    first = relative_steps(network, kind(network.parameters(), lr=RATE), batches[:1], names)
    assert first == pytest.approx(expected, rel=0.02)
    assert np.abs(log_change(kind, base, plans, batches[:1])).max() < 0.02
    adam = log_change(kind, base, plans, batches)
    assert np.abs(adam).max() < 0.25 * np.abs(sgd_change).max()
    assert abs(trend(adam)) < 0.15 * abs(trend(sgd_change))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_noise_of_dp_sgd_is_the_same_for_every_element_and_the_signal_is_v(
    base: nn.Module, plans: dict[int, Plan]
) -> None:
    """Signal against noise, layer by layer, in a step of Opacus, beside T of log v without labels."""
    opacus = pytest.importorskip("opacus", reason="Opacus is not installed: pip install idealgroups[dp]")
    from torch.utils.data import DataLoader, TensorDataset

    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(64, 3, 16, 16, generator=generator), torch.arange(64) % 10
    sigma, clip = 0.7, 0.1
    for plan in plans.values():
        assert plan.after is not None
        names = in_line(plan)
        converted = ig.apply(base, plan).train()
        network, optimizer, _ = opacus.PrivacyEngine().make_private(
            module=converted,
            optimizer=torch.optim.SGD(converted.parameters(), lr=RATE),
            data_loader=DataLoader(TensorDataset(x, y), 64),
            noise_multiplier=sigma,
            max_grad_norm=clip,
            poisson_sampling=False,
        )
        F.cross_entropy(network(x), y).backward()
        optimizer.pre_step()
        weights = {name.removeprefix("_module."): weight for name, weight in network.named_parameters()}
        ratios = []
        for name in names:
            signal, noisy = weights[name].summed_grad, weights[name].grad * 64
            noise = float((noisy - signal).square().mean().sqrt())
            assert noise == pytest.approx(sigma * clip, rel=0.05)
            ratios.append(float(signal.square().mean().sqrt()) / noise)
        assert trend(np.log(ratios)) == pytest.approx(replace(plan.after, optimizer="dp-sgd").trend, abs=0.4)
