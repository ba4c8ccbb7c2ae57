"""The lists of modules, parameters and buffers are torch's own."""

from __future__ import annotations

import torch
from torch import nn

from idealgroups.sandbox.walking import buffers, named_buffers, named_modules, named_parameters, parameters


class Shared(nn.Module):
    """A module under three names, a tied weight, and missing children."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.again = self.first
        self.none = None
        self.last = nn.ModuleDict({"a": nn.Linear(2, 2), "b": self.first[1]})
        self.last["a"].weight = self.first[0].weight
        self.register_buffer("own", torch.zeros(1), persistent=False)
        self.register_module("empty", None)


def test_shared_missing_and_tied_ones_come_as_torch_yields_them() -> None:
    model = Shared()
    modules = named_modules(model)
    assert list(modules.items()) == list(model.named_modules())
    found = list(named_parameters(modules.items()))
    wanted = list(model.named_parameters())
    assert [name for name, _ in found] == [name for name, _ in wanted]
    assert [id(p) for p in parameters(modules.values())] == [id(p) for _, p in wanted] == [id(p) for _, p in found]
    assert [id(b) for b in buffers(modules.values())] == [id(b) for b in model.buffers()]
    named = [(name, id(b)) for name, b in named_buffers(modules.items())]
    assert named == [(name, id(b)) for name, b in model.named_buffers()]


def test_a_module_in_itself_comes_once() -> None:
    model = nn.Sequential(nn.Sequential())
    model[0].add_module("up", model)
    assert list(named_modules(model)) == list(dict(model.named_modules()))
