"""Calibration of whole networks.

Where the samples are circular shifts of one another, and convolutions wrap around, every sample has the same group
statistics in every layer. Then group norm is an affine map per channel, and the calibrated network must be the trained
one exactly, whatever the numbers of groups.
"""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import idealgroups as ig
from idealgroups.calibration.calibrate import calibrate
from idealgroups.norms.group_norm_act import GroupNormAct

timm_norms = pytest.importorskip("timm.layers")
frozen = pytest.importorskip("torchvision.ops").FrozenBatchNorm2d


def trained(model: nn.Module) -> nn.Module:
    """Statistics, γ and β as training leaves them: different in every channel."""
    for module in model.modules():
        if isinstance(getattr(module, "running_mean", None), torch.Tensor):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
        if isinstance(module, frozen) or getattr(module, "running_mean", None) is not None:
            for tensor, low in ((module.weight, 0.5), (module.bias, -1)):
                if tensor is not None:
                    nn.init.uniform_(tensor, low, 1.5)
    return model.eval()


def converted(model: nn.Module, groups: int) -> nn.Module:
    """Group norms with eps 1e-5 where batch and instance norms were, γ and β kept; by hand, not by the library."""
    model = copy.deepcopy(model)

    def exchange(parent: nn.Module) -> None:
        for name, child in parent.named_children():
            running = getattr(child, "running_mean", None)
            if running is None:
                exchange(child)
                continue
            affine = child.weight is not None
            if hasattr(child, "act"):
                new = GroupNormAct(groups, len(running), act=child.act)
            else:
                new = nn.GroupNorm(groups, len(running), affine=affine)
            if affine:
                new.weight = nn.Parameter(child.weight.detach().clone())
                new.bias = nn.Parameter(child.bias.detach().clone())
            setattr(parent, name, new)

    exchange(model)
    return model


def shifts(*shape: int, samples: int = 12) -> torch.Tensor:
    """One random input and its circular shifts along the last dimension."""
    one = torch.randn(shape)
    return torch.stack([one.roll(k, -1) for k in range(samples)])


def wrapped(dims: int, inside: int, outside: int, groups: int = 1) -> nn.Module:
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    return conv(inside, outside, 3, padding=1, padding_mode="circular", groups=groups)


def chain(norm, dims: int = 2, groups: int = 1) -> nn.Sequential:
    """Three convolutions with a norm each; the last one's output is seen as it is."""
    parts = []
    for inside in (3, 8, 8):
        parts += [wrapped(dims, inside, 8, groups if inside == 8 else 1), norm(8), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


EXACT = {
    "BatchNorm1d": (lambda: chain(nn.BatchNorm1d, 1), (3, 24)),
    "BatchNorm2d": (lambda: chain(nn.BatchNorm2d), (3, 5, 14)),
    "BatchNorm3d": (lambda: chain(nn.BatchNorm3d, 3), (3, 4, 4, 13)),
    "SyncBatchNorm": (lambda: chain(nn.SyncBatchNorm), (3, 5, 14)),
    "FrozenBatchNorm2d": (lambda: chain(frozen), (3, 5, 14)),
    "with activation": (lambda: chain(timm_norms.BatchNormAct2d), (3, 5, 14)),
    "affine=False": (lambda: chain(lambda c: nn.BatchNorm2d(c, affine=False)), (3, 5, 14)),
    "depthwise": (lambda: chain(nn.BatchNorm2d, groups=8), (3, 5, 14)),
    "InstanceNorm2d": (
        lambda: chain(lambda c: nn.InstanceNorm2d(c, affine=True, track_running_stats=True)),
        (3, 5, 14),
    ),
}


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("name", EXACT)
def test_recovers_the_trained_network_where_group_statistics_do_not_vary(name, groups):
    build, shape = EXACT[name]
    reference = trained(build())
    x = shifts(*shape)
    result, done = calibrate(converted(reference, groups), reference, x)
    torch.testing.assert_close(result(x), reference(x), rtol=1e-3, atol=1e-3)
    assert len(done.residuals) == 3
    assert max(done.residuals.values()) < 1e-6
    assert done.output_residual < 1e-6
    assert (done.samples, done.left) == (12, {})


def test_fully_connected():
    """BatchNorm1d on (N, C): the rows are permutations of one another, so their mean and variance are the same."""
    reference = trained(nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 4)))
    x = torch.stack([torch.randn(16)[torch.randperm(16)] for _ in range(1)] * 20)
    x = torch.stack([row[torch.randperm(16)] for row in x])
    result, done = calibrate(converted(reference, 1), reference, x)
    torch.testing.assert_close(result(x), reference(x), rtol=1e-3, atol=1e-3)
    assert done.residuals["0"] < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_calibrated_in_float32_and_stays_half(dtype):
    reference = trained(chain(nn.BatchNorm2d))
    x = shifts(3, 5, 14)
    half, model = copy.deepcopy(reference).to(dtype), converted(reference, 2).to(dtype)
    result, done = calibrate(model, half, x.to(dtype))
    assert {p.dtype for p in result.parameters()} == {dtype}
    assert max(done.residuals.values()) < 1e-3
    torch.testing.assert_close(result.float()(x), reference(x), rtol=0.1, atol=0.1)


@torch.no_grad()
def test_dead_channels_and_gamma_zero_put_out_their_constant():
    reference = trained(chain(nn.BatchNorm2d))
    reference[0].weight[2], reference[0].bias[2] = 0, 0.25  # dead: the convolution puts out a constant
    reference[4].weight[5] = 0
    x = torch.randn(16, 3, 5, 14)
    result, _ = calibrate(converted(reference, 1), reference, x)
    dead = reference[1](reference[0](x))[:, 2]
    torch.testing.assert_close(result[1](result[0](x))[:, 2], dead, rtol=1e-4, atol=1e-4)
    assert (float(result[1].weight[2]), float(result[4].weight[5])) == (0, 0)
    torch.testing.assert_close(result[4].bias[5], reference[4].bias[5])


class Twice(nn.Module):
    """One norm that runs twice, on signals of different scales."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.norm(x), self.norm(3 * x + 1)])


class Tied(nn.Module):
    """Two norms with the same γ and β."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.second.weight, self.second.bias = first.weight, first.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.first(x), self.second(3 * x + 1)])


def together(x: torch.Tensor, reference: nn.Module, eps: float) -> np.ndarray:
    """γ and β of channel 0 by least squares over both calls at once."""
    both = torch.cat([x, 3 * x + 1])
    normalized = nn.functional.group_norm(both, 2, eps=eps)[:, 0].flatten()
    columns = torch.stack([normalized, torch.ones_like(normalized)], 1)
    return np.linalg.lstsq(columns.numpy(), reference(x)[:, 0].flatten().numpy(), rcond=None)[0]


@torch.no_grad()
def test_a_norm_that_runs_twice_is_fitted_to_both_calls():
    reference = trained(Twice(nn.BatchNorm1d(4)))
    x = torch.randn(10, 4, 8)
    result, done = calibrate(converted(reference, 2), reference, x)
    gamma, beta = together(x, reference, done.eps["norm"])
    assert float(result.norm.weight[0]) == pytest.approx(gamma, rel=1e-3)
    assert float(result.norm.bias[0]) == pytest.approx(beta, rel=1e-3, abs=1e-3)


@torch.no_grad()
def test_norms_that_share_their_parameters_are_fitted_together():
    reference = trained(Tied(nn.BatchNorm1d(4), nn.BatchNorm1d(4)))
    model = Tied(nn.GroupNorm(2, 4), nn.GroupNorm(2, 4))
    x = torch.randn(10, 4, 8)
    result, done = calibrate(model, reference, x)
    gamma, beta = together(x, reference, done.eps["first"])
    assert result.first.weight is result.second.weight
    assert done.eps["first"] == done.eps["second"]
    assert float(result.second.weight[0]) == pytest.approx(gamma, rel=1e-3)
    assert float(result.second.bias[0]) == pytest.approx(beta, rel=1e-3, abs=1e-3)


@torch.no_grad()
def test_one_norm_under_two_names_is_fitted_to_both_calls():
    class Shared(nn.Module):
        def __init__(self, norm: nn.Module) -> None:
            super().__init__()
            self.first = self.second = norm

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.first(x), self.second(3 * x + 1)])

    reference = trained(Shared(nn.BatchNorm1d(4)))
    x = torch.randn(10, 4, 8)
    result, done = calibrate(Shared(nn.GroupNorm(2, 4)), reference, x)
    gamma, beta = together(x, reference, done.eps["first"])
    assert list(done.residuals) == ["first"]
    assert result.first is result.second
    assert float(result.first.weight[0]) == pytest.approx(gamma, rel=1e-3)
    assert float(result.first.bias[0]) == pytest.approx(beta, rel=1e-3, abs=1e-3)


def test_another_number_of_groups_in_a_trained_group_norm():
    def network(groups: int) -> nn.Sequential:
        return nn.Sequential(wrapped(2, 3, 8), nn.GroupNorm(groups, 8), nn.ReLU(), wrapped(2, 8, 8))

    reference, model = network(2), network(8)
    nn.init.normal_(reference[1].weight)
    nn.init.normal_(reference[1].bias)
    model.load_state_dict(reference.state_dict())
    x = shifts(3, 5, 14)
    result, done = calibrate(model, reference, x)
    torch.testing.assert_close(result(x), reference(x), rtol=1e-3, atol=1e-3)
    assert result[1].num_groups == 8
    assert done.residuals["1"] < 1e-6


def test_a_pruned_network_gets_closer_and_keeps_its_batch_norms():
    reference = trained(chain(nn.BatchNorm2d))
    model = copy.deepcopy(reference)
    with torch.no_grad():
        model[3].weight *= torch.rand_like(model[3].weight) > 0.5
    x = torch.randn(16, 3, 5, 14)
    result, done = calibrate(model, reference, x)
    assert isinstance(result[4], nn.BatchNorm2d)
    assert done.residuals["1"] < 1e-6
    before, after = ((net(x) - reference(x)).square().mean() for net in (model, result))
    assert after < before


def test_a_loader_with_labels_gives_nearly_what_one_batch_gives():
    reference = trained(chain(nn.BatchNorm2d))
    x = torch.randn(256, 3, 5, 14)
    whole, once = calibrate(converted(reference, 2), reference, x)
    loader = DataLoader(TensorDataset(x, torch.zeros(256)), batch_size=32)
    streamed, several = calibrate(converted(reference, 2), reference, loader)
    assert once.samples == several.samples == 256
    for name, residual in once.residuals.items():
        assert several.residuals[name] == pytest.approx(residual, rel=0.1)
    difference = (whole(x) - streamed(x)).square().mean() / reference(x).var()
    assert difference < 0.01


@torch.no_grad()
def test_a_random_subset_of_positions_is_enough():
    """64 samples of 32 × 32 positions: 64 of 1,024 are kept of each."""
    reference = trained(chain(nn.BatchNorm2d))
    x = torch.randn(64, 3, 32, 32)
    result, done = calibrate(converted(reference, 1), reference, x)
    output = result[:2](x)
    wanted = reference[:2](x)
    error = (output - wanted).square().sum() / (wanted - wanted.mean((0, 2, 3), keepdim=True)).square().sum()
    assert float(error) == pytest.approx(done.residuals["1"], rel=0.1)


def test_both_networks_are_left_as_they_were(untouched):
    reference, x = trained(chain(nn.BatchNorm2d)).train(), torch.randn(8, 3, 5, 14)
    model = converted(reference, 2).train()
    result, _ = untouched(reference, lambda: untouched(model, lambda: calibrate(model, reference, x)))
    assert result is not model
    assert result.training
    assert all(p.requires_grad for p in result.parameters())


def test_inplace_keeps_the_parameters_and_what_freezes_them():
    reference, x = trained(chain(nn.BatchNorm2d)), torch.randn(8, 3, 5, 14)
    model = converted(reference, 2)
    model[1].weight.requires_grad_(False)
    parameter = model[1].weight
    result, _ = calibrate(model, reference, x, inplace=True)
    assert result is model
    assert model[1].weight is parameter
    assert not parameter.requires_grad
    assert not torch.equal(parameter, reference[1].weight)


def test_the_same_seed_gives_the_same_network():
    reference, x = trained(chain(nn.BatchNorm2d)), torch.randn(64, 3, 20, 20)
    model = converted(reference, 2)
    results = [calibrate(model, reference, x, seed=seed)[0].state_dict() for seed in (0, 0, 1)]
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert not torch.equal(results[0]["1.weight"], results[2]["1.weight"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m, r, x: (m, r, x[:1]), "on 1 sample;"),
        (lambda m, r, x: (m, r, torch.full_like(x, torch.nan)), "NaN"),
        (lambda m, r, x: (m, r, []), "empty"),
        (lambda m, r, x: (m, r, x[:, :2]), "the reference raised RuntimeError"),
        (lambda m, r, x: (nn.Conv2d(3, 3, 1), r, x), "nothing to calibrate"),
        (lambda m, r, x: (m, nn.Sequential(*r[:1], nn.Identity(), *r[2:4], nn.Identity()), x), "nothing to calibrate"),
        (lambda m, r, x: (nn.DataParallel(m), r, x), "DataParallel"),
        (lambda m, r, x: (m, "resnet", x), "torch.nn.Module"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_and_nothing_changes(change, why):
    reference, x = trained(chain(nn.BatchNorm2d)[:5]), torch.randn(8, 3, 5, 14)
    model = converted(reference, 2)
    before = copy.deepcopy(model.state_dict())
    given, other, data = change(model, reference, x)
    with pytest.raises(ig.IdealGroupsError, match=why):
        calibrate(given, other, data, inplace=True)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_values_that_overflow_in_the_reference_are_laid_at_its_door():
    reference, x = trained(chain(nn.BatchNorm2d)), torch.randn(8, 3, 5, 14)
    model = converted(reference, 2)
    with torch.no_grad():
        reference[4].weight.fill_(torch.inf)
    with pytest.raises(ig.IdealGroupsError, match="the reference puts out NaN or infinite values at 4"):
        calibrate(model, reference, x)


def test_layers_that_cannot_be_calibrated_are_named():
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.GroupNorm(1, 3)

        def forward(self, x):
            return self.other(self.used(x))

    reference = trained(Half())
    model = converted(reference, 1)
    reference.other = nn.Identity()
    _, done = calibrate(model, reference, torch.randn(8, 3, 5, 5))
    assert list(done.residuals) == ["used"]
    assert done.left == {
        "idle": "did not run on this data",
        "other": "the reference has no normalization layer of this name",
    }
    assert "calibrated 1 layers on 8 samples" in str(done)
