"""Calibrate layer by layer in the order of execution: reference and converted network, one forward pass of each.

When the signal of the converted network reaches a layer, all layers before it are calibrated already. The layer gets
the γ, β and eps (and, where it may choose, the number of groups) with which it comes closest to what the reference
layer put out, and passes its new output on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import IdealGroupsError, one_line
from ..sandbox.calling import call_model, describe
from ..sandbox.generators import sandbox
from ..sandbox.tree import tensors
from .batches import count_samples, move
from .faithful import most_faithful_groups
from .reference import Target, layer_input, record_targets
from .statistics import CallMoments, Fit, Floats, Sums, eps_candidates, least_squares, sums

SAMPLES_TO_CHOOSE = 64
"""How many samples, in whole batches, decide the numbers of groups. Where as many come behind them, those decide γ, β
and eps, and every batch runs once; else all do. The score kept is within half a point in three
networks with two seeds each, and is no lower in the mean."""

RUNNING = 0
"""Stands for a number of groups where a layer normalizes with running statistics."""


@dataclass(frozen=True)
class LayerFit:
    """What one layer was given, and the residual with every number of groups that it could have had."""

    num_groups: int
    fit: Fit
    residuals: Mapping[int, float]


@dataclass(frozen=True)
class Outcome:
    """``layers``: by name. ``silent``: layers that did not run. ``output_residual``: of what the network returns."""

    layers: Mapping[str, LayerFit]
    silent: tuple[str, ...]
    output_residual: float | None


@dataclass
class _Site:
    """A layer, or several that share γ or β, with the sums of every candidate. ``own``: each member's eps at first."""

    members: dict[str, nn.Module]
    candidates: dict[str, tuple[int, ...]]
    budget: float
    own: dict[str, float] = field(default_factory=dict)
    eps: dict[int, Floats] = field(default_factory=dict)
    total: dict[int, Sums] = field(default_factory=dict)
    chosen: LayerFit | None = None
    held: bool = False

    def add(self, name: str, moments: CallMoments) -> None:
        """Sum one call of a member."""
        module = self.members[name]
        for index, groups in enumerate(self.candidates[name]):
            if groups == RUNNING:
                mean, variance = (_running(module, key) for key in ("running_mean", "running_var"))
            else:
                mean, variance = moments.group_statistics(groups)
            if index not in self.eps:
                own = self.own[name]
                self.eps[index] = np.array([own]) if groups == RUNNING else eps_candidates(own, variance)
            new = sums(moments, mean, variance, self.eps[index])
            self.total[index] = self.total[index] + new if index in self.total else new

    def refit(self) -> None:
        """Choose among the candidates by what was summed so far, and write the choice into the layers."""
        first = next(iter(self.members))
        gamma = _vector(self.members[first].weight)
        fits = {groups: least_squares(self.total[i], self.eps[i], gamma) for i, groups in self._indexed(first)}
        residuals = {groups: fit.residual for groups, fit in fits.items()}
        best = most_faithful_groups(residuals, self.budget)
        self.chosen = LayerFit(best, fits[best], residuals)
        index = self.candidates[first].index(best)
        for name, module in self.members.items():
            _write(module, self.candidates[name][index], fits[best])

    def settle(self) -> None:
        """Keep the chosen number of groups from here on, and start the sums again."""
        if self.chosen is not None:
            index = self.candidates[next(iter(self.members))].index(self.chosen.num_groups)
            self.candidates = {name: (groups[index],) for name, groups in self.candidates.items()}
        self.eps, self.total = {}, {}

    def _indexed(self, name: str) -> Iterable[tuple[int, int]]:
        return enumerate(self.candidates[name])


def fit_layers(
    model: nn.Module,
    reference: nn.Module,
    batches: Sequence[Any],
    candidates: Mapping[str, tuple[int, ...]],
    budget: float,
    seed: int,
) -> Outcome:
    """Give every layer in ``candidates`` its γ, β, eps and number of groups; changes ``model``.

    Args:
        model: converted, in evaluation mode. Every layer to fit has a γ and a β.
        reference: of the same structure, in evaluation mode.
        batches: as the model takes them; see ``SAMPLES_TO_CHOOSE`` for what each is used for.
        candidates: {layer: numbers of groups to choose from}, or ``(RUNNING,)`` for a batch norm.
        budget: of the choice, see :func:`most_faithful_groups`.
        seed: of the kept positions, and of whatever the networks draw.
    """
    sites = _sites(model, candidates, budget)
    rounds = _Rounds(model, reference, sites, seed)
    choosing = any(len(groups) > 1 for groups in candidates.values())
    used = samples = 0
    while used < len(batches) and not (choosing and samples >= SAMPLES_TO_CHOOSE):
        samples += count_samples(batches[used : used + 1])
        is_last = used + 1 == len(batches) or (choosing and samples >= SAMPLES_TO_CHOOSE)
        rounds.run(batches[used], used, is_last=is_last)
        used += 1
    if (choosing and len(batches) > 1) or any(site.held for site in sites.values()):
        for site in {id(site): site for site in sites.values()}.values():
            site.settle()
        rounds.error = rounds.spread = 0.0
        start = used if choosing and count_samples(batches[used:]) >= samples else 0
        for number, batch in enumerate(batches[start:], start):
            rounds.run(batch, number, hold=True, is_last=number + 1 == len(batches))
    layers = {name: site.chosen for name, site in sites.items() if site.chosen is not None and name in rounds.ran}
    output = rounds.error / rounds.spread if rounds.spread > 0 else None
    return Outcome(layers, tuple(name for name in sites if name not in layers), output)


def _sites(model: nn.Module, candidates: Mapping[str, tuple[int, ...]], budget: float) -> dict[str, _Site]:
    """One site a layer, and one for all layers that share γ or β."""
    modules = dict(model.named_modules())
    owners: dict[int, _Site] = {}
    sites = {}
    for name, groups in candidates.items():
        module = modules[name]
        parameters = [id(module.weight), id(module.bias)]
        site = next((owners[p] for p in parameters if p in owners), None) or _Site({}, {}, budget)
        site.members[name], site.candidates[name] = module, groups
        site.own[name] = float(module.eps)
        site.held = len(site.members) > 1
        owners |= dict.fromkeys(parameters, site)
        sites[name] = site
    return sites


class _Rounds:
    """Runs both networks on a batch, and sums how far what they return differs."""

    def __init__(self, model: nn.Module, reference: nn.Module, sites: dict[str, _Site], seed: int) -> None:
        self._model, self._reference, self._sites, self._seed = model, reference, sites, seed
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._targets: Mapping[str, list[Target]] = {}
        self._hold = self._is_last = False
        self.ran: set[str] = set()
        self.error = self.spread = 0.0

    def run(self, batch: Any, number: int, hold: bool = False, is_last: bool = False) -> None:
        """Run one batch.

        Args:
            batch: as the model takes it.
            number: of the batch, for the seed.
            hold: layers that share parameters, or run several times, keep them until the batch is over.
            is_last: no batch comes after this one, so a layer's sums are freed as soon as it has its fit.
        """
        self._hold, self._is_last = hold, is_last
        self._targets, wanted = record_targets(
            self._reference, self._sites, lambda net: self._call(net, batch, "reference"), self._seed + number
        )
        for name, calls in self._targets.items():
            self._sites[name].held |= len(calls) > 1
        modules = dict(self._model.named_modules())
        hooks = [modules[name].register_forward_pre_hook(self._hook(name), with_kwargs=True) for name in self._sites]
        try:
            given = self._call(self._model, batch, "model")
        finally:
            for hook in hooks:
                hook.remove()
        if hold:
            for site in {id(site): site for site in self._sites.values() if site.held and site.total}.values():
                site.refit()
        self._compare(given, wanted)

    def _hook(self, name: str) -> Any:
        site = self._sites[name]

        def fit(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls = self._targets.get(name)
            if not calls:
                raise IdealGroupsError(
                    f"{name} runs more often in the model than in the reference; give two networks of one structure."
                )
            moments = calls.pop(0).moments(name, layer_input(name, args, kwargs))
            _check_finite(name, moments)
            self.ran.add(name)
            site.add(name, moments)
            if not (self._hold and site.held):
                site.refit()
                if self._is_last and not site.held:
                    site.total.clear()

        return fit

    def _call(self, network: nn.Module, batch: Any, who: str) -> Any:
        inputs = move(batch, self._device)
        try:
            with sandbox(self._seed, self._device), torch.no_grad():
                return call_model(network, inputs)
        except IdealGroupsError:
            raise
        except Exception as error:
            raise IdealGroupsError(
                f"the {who} raised {one_line(error)} — on inputs {describe(batch)}; "
                "give data to calibrate on as the model takes it (a tensor, a tuple or a dict)."
            ) from error

    def _compare(self, given: Any, wanted: Any) -> None:
        for ours, theirs in zip(tensors(given), tensors(wanted), strict=False):
            if ours.shape == theirs.shape and ours.ndim > 0 and ours.is_floating_point():
                self.error += float((ours.double() - theirs.double()).square().sum())
                self.spread += float((theirs.double() - theirs.double().mean(0)).square().sum())


def _check_finite(name: str, moments: CallMoments) -> None:
    for what, values in (("the reference puts out", moments.tt), ("the model puts in", moments.zz + moments.var)):
        if not np.isfinite(values).all():
            raise IdealGroupsError(f"{what} NaN or infinite values at {name}; check its weights and the data.")


@torch.no_grad()
def _write(module: nn.Module, groups: int, fit: Fit) -> None:
    for parameter, values in ((module.weight, fit.gamma), (module.bias, fit.beta)):
        assert isinstance(parameter, Tensor)
        parameter.copy_(torch.from_numpy(values))
    if groups != RUNNING:
        module.num_groups, module.eps = groups, fit.eps  # type: ignore[assignment]


def _running(module: nn.Module, key: str) -> Floats:
    return _vector(getattr(module, key))


def _vector(value: Any) -> Floats:
    vector: Floats = value.detach().cpu().double().numpy().reshape(-1)
    return vector
