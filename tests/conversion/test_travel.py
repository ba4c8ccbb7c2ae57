"""A converted model's numbers of groups are in its state_dict, and weights do not load into other groups."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import idealgroups as ig
import networks
from idealgroups.conversion.travel import carry, settings_in


def converted(groups: dict[str, int] | None = None) -> nn.Module:
    model = networks.plain(width=16, depth=2)
    return ig.set_groups(model, groups or {"0.1": 4, "1.1": 8})


def through_a_file(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def groups_in(state: Any) -> dict[str, int]:
    return {name: settings.num_groups for name, settings in settings_in(state._metadata, "the test").items()}


def test_groups_survive_saving_and_add_no_key() -> None:
    state = converted().state_dict()
    assert groups_in(through_a_file(state)) == {"0.1": 4, "1.1": 8}
    plain = nn.Sequential(
        networks.conv_block(3, 16, nn.GroupNorm(4, 16)),
        networks.conv_block(16, 16, nn.GroupNorm(8, 16)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    assert list(state) == list(plain.state_dict())
    plain.load_state_dict(through_a_file(state))  # what knows nothing of groups loads it as before


@pytest.mark.parametrize(
    "through",
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: torch.optim.swa_utils.AveragedModel(model).module,
        lambda model: model.half(),
        lambda model: model.to("meta"),
    ],
    ids=["deepcopy", "pickle", "average", "half", "meta"],
)
def test_what_is_made_of_the_model_carries_them_too(through: Any) -> None:
    model = through(converted())
    assert groups_in(model.state_dict()) == {"0.1": 4, "1.1": 8}
    model[0][1].num_groups = 2
    assert groups_in(model.state_dict()) == {"0.1": 2, "1.1": 8}  # what is, not what was planned
    assert groups_in(converted().state_dict()) == {"0.1": 4, "1.1": 8}


def test_a_copy_checks_its_own_groups() -> None:
    first = converted()
    second = copy.deepcopy(first)
    second[0][1].num_groups = 2
    with pytest.raises(ig.IdealGroupsError, match="2 groups"):
        second.load_state_dict(first.state_dict())
    first.load_state_dict(first.state_dict())


def test_every_part_carries_its_own() -> None:
    model = converted()
    assert groups_in(model[1].state_dict()) == {"1": 8}
    assert groups_in(model[1][1].state_dict()) == {"": 8}


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: nn.ModuleDict({"net": m})], ids=["itself", "in another"])
@pytest.mark.parametrize("strict", [True, False])
def test_weights_of_other_groups_are_refused_before_any_is_loaded(wrap: Any, strict: bool) -> None:
    ours, theirs = wrap(converted()), wrap(converted({"0.1": 4, "1.1": 2}))
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(ig.IdealGroupsError, match=r"1\.1 has 2 groups .* in the checkpoint and 8 groups .*restore"):
        ours.load_state_dict(through_a_file(theirs.state_dict()), strict=strict)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


def test_another_eps_is_refused_as_well() -> None:
    ours, theirs = converted(), converted()
    theirs[1][1].eps = 1e-3
    with pytest.raises(ig.IdealGroupsError, match=r"eps 0\.001 .* eps 1e-05"):
        ours.load_state_dict(theirs.state_dict())


def test_weights_that_say_nothing_load() -> None:
    model = converted()
    model.load_state_dict(dict(model.state_dict()))


def test_a_converted_model_carries_every_planned_layer() -> None:
    model = networks.group_normed(groups=4)
    x = torch.randn(2, 3, 8, 8)
    plan = ig.plan(model, x, strategy="group-size-4")  # 4 groups of 16 channels: nothing changes
    assert groups_in(ig.apply(model, plan).state_dict()) == plan.num_groups == {"0.1": 4, "1.1": 4}
    assert ig.groups(model) == {}  # the user's own model was not touched


def test_a_model_built_with_norm_layer_carries_them() -> None:
    def build(norm_layer: Any = nn.BatchNorm2d) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 16, 3), norm_layer(16), nn.ReLU(), nn.Conv2d(16, 32, 3), norm_layer(32))

    plan = ig.plan(build(), torch.randn(2, 3, 8, 8), strategy="group-size-16")
    model = build(norm_layer=ig.norm_layer(plan, build))
    assert groups_in(model.state_dict()) == plan.num_groups
    assert ig.groups(model) == {"1": {"num_groups": 1, "eps": 1e-5}, "4": {"num_groups": 2, "eps": 1e-5}}


def test_a_model_that_is_one_norm() -> None:
    layer = ig.set_groups(nn.BatchNorm2d(8), {"": 2})
    with pytest.raises(ig.IdealGroupsError, match="the layer has 2 groups"):
        ig.set_groups(nn.BatchNorm2d(8), {"": 4}).load_state_dict(layer.state_dict())


def test_hooks_are_put_on_once() -> None:
    model = converted()
    assert carry(model, ["0.1"]) == []
    assert len(model[0][1]._state_dict_hooks) == len(model[0][1]._load_state_dict_pre_hooks) == 1


def test_torch_still_compiles_and_exports_the_model() -> None:
    model, x = converted().eval(), torch.randn(2, 3, 8, 8)
    exported = torch.export.export(model, (x,)).module()
    for other in (torch.compile(model, backend="eager"), exported):
        torch.testing.assert_close(other(x), model(x))
    assert groups_in(torch.compile(model, backend="eager").state_dict()) == {"_orig_mod.0.1": 4, "_orig_mod.1.1": 8}
