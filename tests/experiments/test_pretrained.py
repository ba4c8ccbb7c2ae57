"""The experiment on pretrained networks: arms and report, on a network that takes no time."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("opacus")

from experiments.pretrained import records as measured
from experiments.pretrained.arms import WIDTHS, convert, freeze, group_norms
from experiments.pretrained.data import Split
from experiments.pretrained.fits import WAYS, fit_all
from experiments.pretrained.rates import wanted
from experiments.pretrained.report import write_report, write_summary
from experiments.pretrained.training import batches, score


@pytest.fixture
def trained() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)
    )
    nn.init.normal_(model[1].weight, 1, 0.5)
    nn.init.normal_(model[1].bias)
    for _ in range(30):
        model(torch.randn(32, 3, 8, 8))
    return model.eval()


@torch.no_grad()
def distance(one: nn.Module, other: nn.Module, x: torch.Tensor) -> float:
    return float((one(x) - other(x)).square().mean())


def test_arms_differ_in_what_they_promise(trained: nn.Module) -> None:
    pool, x = torch.randn(64, 3, 8, 8), torch.randn(64, 3, 8, 8)
    budgets = ("calibrated: faithful 0.001", "calibrated: faithful 0.03")
    arms = ("batch norm", "frozen", "naive: one", "naive: 32", "opacus", "calibrated: one", *budgets)
    made = {arm: convert(arm, trained, pool, seed=0) for arm in arms}
    far = {arm: distance(one.model, trained, x) for arm, one in made.items()}
    assert far["batch norm"] == far["frozen"] == 0
    assert far["calibrated: one"] < far["naive: one"]
    assert far["calibrated: faithful 0.001"] < far["opacus"]
    assert made["naive: 32"].model[1].num_groups == made["opacus"].model[1].num_groups == 32
    assert made["calibrated: faithful 0.001"].groups[0] <= made["calibrated: faithful 0.03"].groups[0]
    assert trained[1].running_mean is not None


def test_freezing_leaves_constants_that_compute_the_same(trained: nn.Module) -> None:
    x = torch.randn(8, 3, 8, 8)
    wanted = trained(x)
    frozen = freeze(copy.deepcopy(trained)).train()
    torch.testing.assert_close(frozen(x), wanted)
    assert [name for name, _ in frozen.named_parameters()] == ["0.weight", "0.bias", "5.weight", "5.bias"]


@torch.no_grad()
@pytest.mark.parametrize("how", ["least squares", "moments", "behind"])
def test_ways_to_fit_do_what_they_promise(trained: nn.Module, how: str) -> None:
    """Each is the best of all but the permuted one, which has other groups, by its own measure."""
    x = torch.randn(64, 3, 8, 8)

    def measure(model: nn.Module) -> float:
        ours, theirs = model[:2](x), trained[:2](x)
        if how == "behind":
            ours, theirs = ours.relu(), theirs.relu()
        if how == "moments":
            ours, theirs = (torch.cat([y.mean((0, 2, 3)), y.std((0, 2, 3))]) for y in (ours, theirs))
        return float((ours - theirs).square().sum())

    start = group_norms(trained, WIDTHS["32"])
    found = {way: measure(fit_all(copy.deepcopy(start), trained, x, way)) for way in WAYS if way != "permuted"}
    assert found[how] == pytest.approx(min(found.values()))
    assert len({round(value, 6) for value in found.values()}) == 4  # of one layer, "at once" is least squares


@torch.no_grad()
def test_fitted_at_once_a_layer_does_not_see_what_those_before_it_put_out(trained: nn.Module) -> None:
    torch.manual_seed(0)
    one = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.BatchNorm2d(32))
    one.train()(torch.randn(256, 3, 8, 8))
    x = torch.randn(64, 3, 8, 8)
    start = group_norms(one.eval(), WIDTHS["32"])
    residuals = {}
    for how in ("least squares", "at once"):
        model = fit_all(copy.deepcopy(start), one, x, how)
        alone = model[4](one[:4](x)) - one(x), model(x) - one(x)
        residuals[how] = [float(difference.square().sum()) for difference in alone]
    assert residuals["at once"][0] < residuals["least squares"][0]  # on the reference's own signal
    assert residuals["least squares"][1] < residuals["at once"][1]  # on the signal of the converted network


@torch.no_grad()
def test_permuted_groups_hold_channels_that_undo_each_other() -> None:
    """Four channels whose power changes from sample to sample: two rise where two fall."""
    scale = torch.rand(64, 1, 1, 1)
    z = torch.randn(64, 4, 8, 8) * torch.cat([scale, scale, 1 - scale, 1 - scale], 1).sqrt()
    reference = nn.Sequential(nn.BatchNorm2d(4, momentum=1.0))
    reference.train()(z)
    layer = fit_all(group_norms(reference.eval(), lambda channels: 2), reference, z, "permuted")[0]
    assert {len({0, 1} & set(pair)) for pair in layer.order.reshape(2, 2).tolist()} == {1}
    plain = nn.GroupNorm(2, 4, eps=layer.eps)(z[:, layer.order])[:, layer.order.argsort()]
    torch.testing.assert_close(layer(z), plain * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1))


def test_clients_train_from_the_weights_of_the_server(trained: nn.Module) -> None:
    pytest.importorskip("flwr")
    from experiments.pretrained.federated import STEPS, Client
    from recipes.with_flower import get_weights

    data = Split(torch.randn(40, 3, 8, 8), torch.randint(0, 4, (40,)))
    client = Client(trained, data, frozen=True)
    arrays, count, _ = client.fit(get_weights(trained), {"rate": 0.0, "seed": 0})
    assert (count, STEPS) == (40, 16)
    server = get_weights(trained)
    assert all((a == b).all() for a, b in zip(arrays, server, strict=True))
    moved, _, _ = client.fit(get_weights(trained), {"rate": 0.1, "seed": 0})
    names = list(trained.state_dict())
    changed = {name for name, a, b in zip(names, server, moved, strict=True) if (a != b).any()}
    assert "0.weight" in changed
    assert not changed & {"1.running_mean", "1.running_var"}


def test_widths() -> None:
    assert [WIDTHS[way](48) for way in ("one", "size 16", "32")] == [1, 3, 16]
    norm = nn.BatchNorm1d(48, eps=0.5)
    nn.init.normal_(norm.weight)
    new = group_norms(nn.Sequential(norm), WIDTHS["size 16"])[0]
    assert (new.num_groups, new.eps) == (3, 0.5)
    assert torch.equal(new.weight, norm.weight)


def test_scores() -> None:
    """Three of four right; and of pixels: class 0 has 1 of 2, class 1 has 2 of 3 in common."""
    found = torch.tensor([[9.0, 0], [9, 0], [0, 9], [0, 9]])
    assert score(nn.Identity(), Split(found, torch.tensor([0, 1, 1, 1])), 2) == 75
    pixels = found.T.reshape(1, 2, 2, 2)
    assert score(nn.Identity(), Split(pixels, torch.tensor([[[0, 1], [1, 1]]])), 2) == pytest.approx(
        100 * (1 / 2 + 2 / 3) / 2
    )


def test_batches_are_epochs_of_the_same_seed() -> None:
    split = Split(torch.arange(6.0)[:, None], torch.arange(6))
    drawn = [y for _, y in batches(split, 3, 4, seed=1, flips=False)]
    assert sorted(torch.cat(drawn[:2]).tolist()) == sorted(torch.cat(drawn[2:]).tolist()) == list(range(6))
    assert [y.tolist() for _, y in batches(split, 3, 4, seed=1, flips=False)] == [y.tolist() for y in drawn]


def test_the_report_counts_by_hand(tmp_path: Path) -> None:
    scores = {"batch norm": (80.0, 60.0), "calibrated: faithful 0.001": (70.0, 57.0), "opacus": (20.0,)}
    records = [
        {"part": "kept", "network": "net", "seed": seed, "arm": arm, "score": value}
        for arm, values in scores.items()
        for seed, value in enumerate(values)
    ]
    records += [
        {"part": "tune", "network": "net", "seed": 0, "arm": "opacus", "batch": 2, "rate": rate, "scores": run}
        for rate, run in {0.1: {"0": 10.0, "50": 40.0}, 0.2: {"0": 10.0, "50": 30.0}}.items()
    ]
    tuned = records[-2] | {"seed": 1, "scores": {"0": 20.0, "50": 50.0}}  # at the rate that was best on seed 0
    write_report([*records, tuned], tmp_path / "report.md")
    assert "| opacus | 15.0 / 45.0 ± 7.1 (0.1) |" in (tmp_path / "report.md").read_text()
    assert wanted({"part": "tune", "network": "net", "seed": 1, "arm": "opacus", "batch": 2, "rate": 0.1}, records)
    assert not wanted({"part": "tune", "network": "net", "seed": 1, "arm": "opacus", "batch": 2, "rate": 0.2}, records)
    write_report(records, tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert "| calibrated: faithful 0.001 | 63.5 ± 9.2 (91.2) |" in text  # 70/80 and 57/60
    assert "| opacus | 20.0 (25.0) |" in text  # of its own seed
    assert "| opacus | 10.0 / 40.0 (0.1) |" in text
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- kept -->\n<!-- /kept -->\nafter\n<!-- tuned -->\n<!-- /tuned -->\n")
    write_summary(records, page)
    assert "| net | 2 | 70.0 | – | – | 25 | – | – | – | 91 | – |" in page.read_text()
    assert "| opacus | 10.0 / 40.0 (0.1) |" in page.read_text()
    assert "## " not in page.read_text()


def test_nothing_is_measured_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [measured.key(record) for record in measured.records()]
    assert len(keys) == len(set(keys))
    monkeypatch.setattr(measured, "RECORDS", tmp_path / "records.jsonl")
    done: set[Any] = set()
    for value in (1, 2):
        measured.measure_once({"part": "kept", "arm": "one"}, lambda value=value: {"score": value}, done)
    assert [record["score"] for record in measured.records()] == [1]
