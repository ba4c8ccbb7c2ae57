"""The training loop that experiments share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from experiments.common.stepping import eager_step, fast_step
from experiments.common.training import make_optimizer, train_epoch
from experiments.study.engines import single_thread


def squared(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return (network(x) - y).square().mean()


def test_a_step_returns_the_loss_before_the_update_and_descends_along_the_gradient() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 3.0)
    step = eager_step(network, squared, torch.optim.SGD(network.parameters(), lr=0.25))
    x, y = torch.ones(2, 1), torch.ones(2, 1)
    loss = step(x, y)
    assert float(loss) == 4.0  # (3 - 1)²
    assert not loss.requires_grad
    assert network.weight.item() == 2.0  # 3 - 0.25 · 2 (3 - 1)
    assert float(step(x, y)) == 1.0


def test_an_epoch_makes_the_step_it_is_given_and_averages_its_losses() -> None:
    network = nn.Linear(1, 1)
    optimizer = make_optimizer(network, "sgd", 0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    seen: list[float] = []

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.step()
        seen.append(float(x))
        return x

    batches = [(torch.tensor(value), torch.tensor(0.0)) for value in (1.0, 2.0, 6.0)]
    epoch = train_epoch(network, batches, squared, optimizer, schedule, step)
    assert (epoch.loss, epoch.steps, seen) == (3.0, 3, [1.0, 2.0, 6.0])


def test_without_a_gpu_steps_are_made_as_written() -> None:
    network = nn.Linear(1, 1)
    step = fast_step(network, squared, make_optimizer(network, "adamw", 0.1))
    before = network.weight.clone()
    step(torch.ones(2, 1), torch.zeros(2, 1))
    assert not torch.equal(network.weight, before)


def test_a_process_of_a_study_computes_in_full_precision_and_in_one_order() -> None:
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = True, False
    single_thread()
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == (False, True)
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_recorded_step_trains_as_a_written_one(name: str) -> None:
    single_thread()
    losses = {}
    for make in (eager_step, fast_step):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 1)
        ).cuda()
        optimizer = make_optimizer(network, name, 0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
        batches = [(torch.randn(4, 3, 8, 8).cuda(), torch.randn(4, 1).cuda()) for _ in range(12)]
        epoch = train_epoch(network, batches, squared, optimizer, schedule, make(network, squared, optimizer))
        losses[make] = (epoch.loss, network[0].weight.sum().item())
    assert losses[fast_step] == losses[eager_step]
