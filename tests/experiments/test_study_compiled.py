"""Group norm as a matrix, and the one program that networks with it share."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from experiments.study import networks
from experiments.study.compiled import MatrixGroupNorm, run_network, with_matrices
from experiments.study.config import Images, Run
from experiments.study.data import load
from experiments.study.networks import build
from experiments.study.planned import PlanJob, plan_strategies
from experiments.study.train import TrainJob, train
from experiments.study.variants import parse
from idealgroups.api import apply, plan
from study_cases import ARM


def outputs_and_gradients(norm: nn.Module, x: Tensor, weight: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    outputs = norm(x)
    return [outputs, *torch.autograd.grad((outputs * weight).sum(), [x, *norm.parameters()])]


@pytest.mark.parametrize(("num_groups", "num_channels"), [(1, 6), (2, 6), (3, 6), (6, 6), (32, 96)])
def test_it_is_group_norm_with_the_same_gradients(num_groups: int, num_channels: int) -> None:
    norm = nn.GroupNorm(num_groups, num_channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x, weight = 2 + 3 * torch.randn(4, num_channels, 5, 7), torch.randn(4, num_channels, 5, 7)
    matrix = MatrixGroupNorm(norm)
    assert [id(p) for p in matrix.parameters()] == [id(p) for p in norm.parameters()]
    both = outputs_and_gradients(matrix, x, weight), outputs_and_gradients(norm, x, weight)
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_it_keeps_its_digits_where_the_mean_is_twenty_times_the_deviation() -> None:
    norm, x = nn.GroupNorm(2, 4), 20 + torch.randn(4, 4, 16, 16)
    torch.testing.assert_close(MatrixGroupNorm(norm)(x), norm(x), rtol=0, atol=1e-3)


def test_it_keeps_half_precision_and_computes_in_full() -> None:
    norm, x = nn.GroupNorm(2, 4), torch.randn(2, 4, 8, 8).bfloat16()
    matrix = MatrixGroupNorm(norm)
    with torch.autocast("cpu", torch.bfloat16):
        ours = matrix(x)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, norm(x.float()).bfloat16())


def test_a_constant_group_gives_its_offset() -> None:
    norm = nn.GroupNorm(1, 2)
    nn.init.constant_(norm.bias, 0.5)
    assert torch.equal(MatrixGroupNorm(norm)(torch.full((1, 2, 3, 3), 1e3)), torch.full((1, 2, 3, 3), 0.5))


@pytest.mark.parametrize("name", ["resnet20-bf16", "mobilenet-bf16"])
def test_one_program_serves_every_choice_of_groups(name: str) -> None:
    counter = CompileCounter()
    compiled = torch.compile(run_network, backend=counter, dynamic=False)
    x = torch.randn(4, 3, 8, 8)
    for rule in ("layer", "fixed-32", "channels-4", "block"):
        whole = build(name, 3, 10, 8)
        whole = apply(whole, plan(whole, x, strategy=parse(rule).rule))
        expected = whole(x)
        inside: Any = with_matrices(whole).get_submodule("network")
        assert not any(isinstance(module, nn.GroupNorm) for module in whole.modules())
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(compiled(inside, x).float(), expected, rtol=0.1, atol=0.1)
    assert counter.frame_count == 1


def test_a_training_in_half_precision_runs_the_program_and_batch_norm_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[nn.Module] = []

    def noted(network: nn.Module, x: Tensor) -> Any:
        ran.append(network)
        return run_network(network, x)

    monkeypatch.setattr(networks, "run_compiled", noted)
    images = Images("digits", 0, 64, 32, 32)
    dataset = load(images)
    arm = dataclasses.replace(ARM, network="resnet20-bf16", images=images, batch_size=32, epochs=1)
    planned = plan_strategies(PlanJob(arm.network, images, 0, 32, ("layer", "batch")), dataset)
    for one, programs in zip(planned, (0, 4), strict=True):  # batch norm is first; two steps, validation and test
        ran.clear()
        outcome = train(TrainJob((Run(arm, one.strategy, 0.01, 0),), one.plan), dataset)
        assert outcome.steps == 2
        assert not outcome.diverged
        assert len(ran) == programs
