"""``convert`` on networks that hold something to keep."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import idealgroups as ig


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 5),
    )


@pytest.fixture
def trained() -> nn.Module:
    """Statistics, γ and β differ from channel to channel."""
    model = network()
    for index in (1, 4):
        nn.init.normal_(model[index].weight, 1, 0.3)
        nn.init.normal_(model[index].bias, 0, 0.3)
    for _ in range(50):
        model(samples(64))
    return model.eval()


def samples(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 12, 12) + torch.randn(count, 3, 1, 1)


def distance(one: nn.Module, other: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        wanted = other(x)
        return float((one(x) - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())


def test_a_trained_network_is_calibrated_by_default(trained):
    x, fresh = samples(128), samples(64)
    before = copy.deepcopy(trained.state_dict())
    model, plan = ig.convert(trained, x)
    assert plan.strategy == "faithful"
    assert plan.calibrated_on == 128
    assert all(site.residual is not None and site.eps is not None for site in plan.sites)
    assert [model[i].num_groups for i in (1, 4)] == list(plan.num_groups.values())
    assert [model[i].eps for i in (1, 4)] == [site.eps for site in plan.sites]
    with pytest.warns(UserWarning, match="expect to retrain"):
        naive, _ = ig.convert(trained, x, strategy="layer", calibrate=False)
    assert distance(model, trained, fresh) < 0.2 * distance(naive, trained, fresh)
    torch.testing.assert_close(trained.state_dict(), before, rtol=0, atol=0)


class Course(nn.Module):
    """Batch norm as courses write it: no class of torch, and names of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.randn(1, channels, 1, 1)) for _ in range(2))
        self.register_buffer("moving_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("moving_var", torch.ones(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, var = self.moving_mean, self.moving_var
        if self.training:
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
            self.moving_mean = 0.9 * self.moving_mean + 0.1 * mean.detach()
            self.moving_var = 0.9 * self.moving_var + 0.1 * var.detach()
        return self.gamma * (x - mean) / (var + 1e-5).sqrt() + self.beta


def test_a_batch_norm_written_by_hand_is_calibrated():
    model = network()
    model[1], model[4] = Course(16), Course(32)
    for _ in range(50):
        model(samples(64))
    converted, plan = ig.convert(model.eval(), samples(128))
    assert plan.strategy == "faithful"
    assert [type(converted[i]) for i in (1, 4)] == [nn.GroupNorm] * 2
    assert distance(converted, model, samples(64)) < 0.1


def test_few_of_many_samples_run_backward(trained):
    """Memory: planning keeps every activation for the backward pass, calibration keeps none."""
    _, plan = ig.convert(trained, samples(128))
    assert plan.input.startswith("4x3x12x12")
    assert plan.calibrated_on == 128


def test_the_plan_says_what_was_calibrated(trained):
    _, plan = ig.convert(trained, samples(128))
    assert "residual" in str(plan)
    assert "calibrated on 128 samples, residual of the output" in str(plan)
    assert ig.Plan.from_dict(plan.to_dict()).to_dict() == plan.to_dict()


def test_every_strategy_can_be_calibrated(trained):
    x = samples(128)
    model, plan = ig.convert(trained, x, strategy="fixed-2")
    assert plan.num_groups == {"1": 2, "4": 2}
    naive, _ = ig.convert(network(), x, strategy="fixed-2")
    naive.load_state_dict({k: v for k, v in trained.state_dict().items() if "running" not in k and "num_b" not in k})
    assert distance(model, trained, x) < distance(naive, trained, x)


def test_without_calibration_gamma_and_beta_are_kept(trained):
    with pytest.warns(UserWarning, match="expect to retrain"):
        model, plan = ig.convert(trained, samples(16), calibrate=False)
    assert plan.strategy == "isometric"
    assert plan.calibrated_on is None
    torch.testing.assert_close(model[1].weight, trained[1].weight)


def test_an_untrained_network_is_planned_as_before():
    model = network()
    converted, plan = ig.convert(model, samples(4))
    assert plan.strategy == "isometric"
    assert plan.calibrated_on is None
    torch.testing.assert_close(converted[1].weight, model[1].weight)


def test_more_data_than_the_example(trained):
    loader = DataLoader(TensorDataset(samples(96), torch.zeros(96)), batch_size=32)
    _, plan = ig.convert(trained, samples(4), calibrate=loader)
    assert plan.calibrated_on == 96


def test_inplace_and_patterns(trained):
    reference = copy.deepcopy(trained)
    x = samples(128)
    model, plan = ig.convert(trained, x, inplace=True, include="4")
    assert model is trained
    assert list(plan.num_groups) == ["4"]
    assert isinstance(model[1], nn.BatchNorm2d)
    assert isinstance(model[4], nn.GroupNorm)
    assert distance(model, reference, x) < 0.1


def test_the_settings_travel_with_the_weights(trained):
    model, plan = ig.convert(trained, samples(128))
    assert model.state_dict()._metadata["1"]["idealgroups"][""]["eps"] == plan.sites[0].eps


def test_the_plan_carries_eps_to_another_network(trained):
    _, plan = ig.convert(trained, samples(128))
    built = ig.apply(network(), plan)
    assert [built[i].eps for i in (1, 4)] == [site.eps for site in plan.sites]


def test_a_network_built_with_the_plan_has_its_eps(trained):
    _, plan = ig.convert(trained, samples(128))

    def build(norm_layer):
        net = network()
        net[1], net[4] = norm_layer(16), norm_layer(32)
        return net

    built = build(ig.norm_layer(plan, build))
    assert [built[i].eps for i in (1, 4)] == [site.eps for site in plan.sites]


def test_one_example_is_too_few(trained):
    with pytest.warns(UserWarning, match="one example is too few"), pytest.warns(UserWarning, match="retrain"):
        _, plan = ig.convert(trained, samples(1))
    assert plan.calibrated_on is None


def test_a_faithful_plan_says_that_the_optimizer_did_not_change_it(trained):
    model, images = trained, samples(32)
    plans = [ig.convert(model, images, optimizer=optimizer)[1] for optimizer in ("sgd", "dp-sgd")]
    assert plans[0].strategy == "faithful"
    assert plans[0].num_groups == plans[1].num_groups
    said = "did not change the groups of faithful, which follow from what the trained network puts out"
    assert [said in " ".join(str(plan).split()) for plan in plans] == [False, True]


def test_faithful_needs_something_to_be_faithful_to():
    with pytest.raises(ig.IdealGroupsError, match="calibrating a trained network"):
        ig.convert(network(), samples(4), strategy="faithful")


@pytest.mark.parametrize("data", [[], samples(1), torch.full((4, 3, 12, 12), torch.nan), 7])
def test_data_that_will_not_do_changes_nothing(trained, data):
    before = copy.deepcopy(trained)
    with pytest.raises(ig.IdealGroupsError):
        ig.convert(trained, samples(4), calibrate=data, inplace=True)
    assert isinstance(trained[1], nn.BatchNorm2d)
    torch.testing.assert_close(trained.state_dict(), before.state_dict(), rtol=0, atol=0)
