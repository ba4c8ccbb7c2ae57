"""A freshly built network gets the groups of its weights, then the weights; nothing in a file is run."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import idealgroups as ig
import networks

GROUPS = {"0.1": 4, "1.1": 8}


def build() -> nn.Module:
    return networks.plain(width=16, depth=2)


def trained() -> nn.Module:
    model = ig.set_groups(build(), GROUPS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    return model


def restores(checkpoint: Any, model: nn.Module, fresh: nn.Module | None = None) -> None:
    fresh = fresh or build()
    x = torch.randn(2, 3, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # these weights belong to these groups: nothing to warn of
        assert ig.restore(fresh, checkpoint) is fresh
    torch.testing.assert_close(fresh(x), model(x))
    assert ig.groups(fresh) == ig.groups(model)


def untouched(model: nn.Module, checkpoint: Any, message: str) -> None:
    """The sentence says ``message``, and the model is what it was."""
    kinds = [type(module) for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ig.IdealGroupsError, match=message) as caught:
        ig.restore(model, checkpoint)
    assert "\n" not in str(caught.value)
    assert [type(module) for module in model.modules()] == kinds
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_from_a_state_dict_or_a_file(tmp_path: Path) -> None:
    model = trained()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    for checkpoint in (model.state_dict(), tmp_path / "weights.pt", str(tmp_path / "weights.pt")):
        restores(checkpoint, model)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "anything"])
def test_from_a_checkpoint_of_a_training_script(key: str, tmp_path: Path) -> None:
    model = trained()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    torch.save({"epoch": 3, key: model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "last.ckpt")
    restores(tmp_path / "last.ckpt", model)


def test_from_safetensors_with_the_groups_in_its_metadata(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    model = trained()
    notes = {"idealgroups": json.dumps(ig.groups(model)), "format": "pt"}
    safetensors.save_file(model.state_dict(), tmp_path / "model.safetensors", metadata=notes)
    restores(tmp_path / "model.safetensors", model)
    safetensors.save_file(model.state_dict(), tmp_path / "bare.safetensors")
    untouched(build(), tmp_path / "bare.safetensors", "does not say with how many groups")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(whole[:-100])
    untouched(build(), tmp_path / "torn.safetensors", "cannot be read as safetensors")


def test_into_a_converted_model_with_other_groups() -> None:
    """A script that converts on its first batch and then resumes."""
    model = trained()
    restores(model.state_dict(), model, ig.set_groups(build(), {"0.1": 1, "1.1": 2}))


def test_into_a_model_with_group_norm_of_its_own_default() -> None:
    model = trained()
    fresh = build()
    fresh[0][1], fresh[1][1] = nn.GroupNorm(16, 16), nn.GroupNorm(16, 16)
    restores(model.state_dict(), model, fresh)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "net.module."])
def test_prefixes_of_wrappers_and_larger_modules(prefix: str) -> None:
    model = trained()
    root = nn.Module()
    inner = root
    for name in prefix[:-1].split(".")[:-1]:
        inner.add_module(name, nn.Module())
        inner = inner.get_submodule(name)
    inner.add_module(prefix[:-1].split(".")[-1], model)
    root.loss_weight = nn.Parameter(torch.ones(1)) if prefix in ("model.", "net.module.") else None
    restores(root.state_dict(), model)


def test_a_part_that_was_compiled_on_its_own() -> None:
    model = trained()
    saved = nn.Sequential(torch.compile(model[0], backend="eager"), *model[1:])
    assert "0._orig_mod.1.weight" in saved.state_dict()
    restores(saved.state_dict(), model)


class HasAModule(nn.Module):
    """Calls a part of its own what wrappers call the network."""

    def __init__(self) -> None:
        super().__init__()
        self.module = build()

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


def test_a_network_whose_own_part_is_called_module() -> None:
    model = ig.set_groups(HasAModule(), {f"module.{name}": number for name, number in GROUPS.items()})
    restores(model.state_dict(), model, HasAModule())
    restores(torch.compile(model, backend="eager").state_dict(), model, HasAModule())


def test_two_networks_in_one_checkpoint_are_not_guessed() -> None:
    both = nn.ModuleDict({"student": trained(), "teacher": trained()})
    untouched(build(), both.state_dict(), "several networks that fit this model .*student., teacher.")
    untouched(build(), {"ema": trained().state_dict(), "raw": trained().state_dict()}, "several .*'ema', 'raw'")


def test_settings_that_only_calibration_gives_come_back_too() -> None:
    """An eps of its own, and γ and β where the trained layer had none."""
    plain = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16, affine=False), nn.ReLU())
    model = ig.set_groups(nn.Sequential(*plain), {"1": {"num_groups": 2, "eps": 0.5}})
    model[1].weight, model[1].bias = nn.Parameter(torch.rand(16)), nn.Parameter(torch.rand(16))
    fresh = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16, affine=False), nn.ReLU())
    restores(model.state_dict(), model, fresh)


def test_another_network_is_named_and_nothing_changes() -> None:
    state = trained().state_dict()
    untouched(networks.mlp(), state, "another network: it gives 0.1 groups and the model has a Linear there|no layer")
    untouched(networks.plain(width=16, depth=1), state, "1.1")
    untouched(networks.plain(width=18, depth=2), state, "4 groups, which do not divide its 18 channels")
    untouched(networks.plain(width=32, depth=2), state, "does not fit the Sequential: .*size mismatch")
    untouched(networks.plain(width=16, depth=3), state, "does not fit the Sequential: .*Missing key")
    untouched(build(), build().state_dict(), "does not say with how many groups")


def test_strict_false_loads_what_there_is() -> None:
    state = trained().state_dict()
    del state["4.weight"], state["4.bias"]
    untouched(build(), state, "Missing key")
    assert ig.groups(ig.restore(build(), state, strict=False)).keys() == GROUPS.keys()


class Evil:
    """What runs code where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("kind", ["pickle", "torch.save", "metadata"])
def test_a_hostile_file_is_not_run(kind: str, tmp_path: Path) -> None:
    evil, path = Evil(tmp_path / "was run"), tmp_path / "hostile.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        state: Any = trained().state_dict()
        if kind == "torch.save":
            state["more"] = evil
        else:
            state._metadata["0.1"]["idealgroups"] = evil
        torch.save(state, path)
    untouched(build(), path, "cannot be read as weights")
    assert not evil.file.exists()


def test_torn_empty_and_other_files(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(trained().state_dict(), path)
    whole = path.read_bytes()
    for size in (1, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        untouched(build(), path, "cannot be read as weights")
    path.write_bytes(b"")
    untouched(build(), path, "is empty")
    path.write_text('{"not": "weights"}')
    untouched(build(), path, "cannot be read as weights")
    untouched(build(), tmp_path / "nowhere.pt", "No such file")
    untouched(build(), tmp_path, "is a folder; give the file of weights in it")
    untouched(build(), "a\0b", "cannot read the checkpoint")
    untouched(build(), "x" * 300, "cannot read the checkpoint")
    torch.save([1, 2], path)
    untouched(build(), path, "holds a list, not the weights")
    torch.save({"epoch": 3}, path)
    untouched(build(), path, "a state_dict is needed")
    untouched(build(), 3, "holds a int, not the weights")


@pytest.mark.parametrize(
    "entry",
    [7, {"": 0}, {"": -2}, {"": True}, {"": "4"}, {3: 4}, {"": {"num_groups": 4, "eps": float("nan")}}, {"": {}}],
    ids=str,
)
def test_nonsense_in_the_metadata(entry: Any) -> None:
    state = trained().state_dict()
    state._metadata[""].pop("idealgroups")
    state._metadata["0.1"]["idealgroups"] = entry
    untouched(build(), state, "the checkpoint (gives the layer|does not hold)")


def test_groups_for_a_configuration_file() -> None:
    model = trained()
    fresh = ig.set_groups(build(), json.loads(json.dumps(ig.groups(model))))
    fresh.load_state_dict(model.state_dict())
    with pytest.raises(ig.IdealGroupsError, match="the model has no such layer"):
        ig.set_groups(fresh, {"0.1": 2, "nowhere": 4})
    assert ig.groups(fresh) == ig.groups(model)


def test_a_plan_for_groups_is_told_what_to_give() -> None:
    plan = ig.plan(build(), torch.randn(2, 3, 8, 8), strategy="layer")
    with pytest.raises(ig.IdealGroupsError, match="an object of class Plan; give its num_groups, or use apply"):
        ig.set_groups(build(), plan)  # type: ignore[arg-type]
