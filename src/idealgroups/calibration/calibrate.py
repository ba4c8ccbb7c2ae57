"""``calibrate``: make a converted network put out what the trained one did, layer by layer, without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import IdealGroupsError
from ..norms import inventory
from ..sandbox.copying import Model, copy_model
from ..sandbox.generators import check_seed
from ..sandbox.supported import refuse_unsupported
from .batches import count_samples, read_batches
from .engine import RUNNING, LayerFit, Outcome, fit_layers
from .faithful import BUDGET

MAX_SAMPLES = 512
"""How many samples of a loader are read; the residual hardly changes beyond (experiments/pretrained)."""


@dataclass(frozen=True)
class Calibration:
    """What :func:`calibrate` did. ``print(calibration)`` is a summary.

    ``residuals``: {layer: squared error against the reference layer's output, as a share of that output's variance}.
    ``output_residual``: the same for what the network returns; None where it returns no tensor. ``eps``: {layer: its
    eps now}. ``samples``: how many were used. ``left``: {layer: why}, the normalization layers that are as they were.
    """

    residuals: Mapping[str, float]
    output_residual: float | None
    eps: Mapping[str, float]
    samples: int
    left: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"calibrated {len(self.residuals)} layers on {self.samples} samples"]
        if self.residuals:
            worst = max(self.residuals, key=lambda name: self.residuals[name])
            lines.append(f"largest residual of a layer: {self.residuals[worst]:.3f} ({worst or 'the model itself'})")
        if self.output_residual is not None:
            lines.append(f"residual of the output: {self.output_residual:.3f}")
        lines += [f"left {name or 'the model itself'}: {why}" for name, why in self.left.items()]
        return "\n".join(lines)


def calibrate(
    model: Model,
    reference: nn.Module,
    inputs: Any,
    *,
    inplace: bool = False,
    max_samples: int = MAX_SAMPLES,
    seed: int = 0,
) -> tuple[Model, Calibration]:
    """Fit the normalization layers of ``model`` to those of ``reference``, a trained network of the same structure.

    Every group norm gets the γ, β and eps with which its output comes closest, by least squares, to what the layer of
    the same name in ``reference`` puts out; a batch norm gets γ and β. Layers are fitted in the order in which they
    run, each on the signal of those fitted before. Two forward passes, no labels, no gradients.

    Source: ours; see docs/pretrained.md.

    Args:
        model: to calibrate, usually converted from ``reference``; also a trained group norm network with another
            number of groups, or a merged or pruned network.
        reference: what to come close to; it is run in evaluation mode, and left as it is.
        inputs: one batch (a tensor of shape (N, …), a tuple of positional or a dict of keyword arguments), or an
            iterable of batches such as a ``DataLoader``, with or without labels behind the inputs.
        inplace: calibrate ``model`` itself, and return it.
        max_samples: how many samples of an iterable are read.
        seed: of the random subset of positions, and of whatever the networks draw.

    Returns:
        The calibrated model, and what was done.

    Raises:
        IdealGroupsError: the networks differ in structure, the data is empty, has one sample or is not finite, or no
            layer can be calibrated. Nothing has been changed then.

    >>> import torch
    >>> trained = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    >>> converted = nn.Sequential(trained[0], nn.GroupNorm(1, 8), nn.ReLU())
    >>> calibrated, done = calibrate(converted, trained, torch.randn(16, 3, 9, 9))
    >>> list(done.residuals), done.residuals["1"] < 0.1
    (['1'], True)
    """
    refuse_unsupported(model)
    refuse_unsupported(reference)
    candidates, left = fixed_candidates(model, reference)
    if not candidates:
        raise IdealGroupsError(
            "there is nothing to calibrate: no group norm, and no batch norm with running statistics, of the model has "
            "a normalization layer of the same name in the reference; give two networks of one structure."
        )
    batches = read_batches(model, inputs, max_samples)
    outcome = fit_candidates(model, reference, batches, candidates, seed=seed)
    done = Calibration(
        residuals={name: layer.fit.residual for name, layer in outcome.layers.items()},
        output_residual=outcome.output_residual,
        eps={name: layer.fit.eps for name, layer in outcome.layers.items()},
        samples=count_samples(batches),
        left=left | dict.fromkeys(outcome.silent, "did not run on this data"),
    )
    target = model if inplace else copy_model(model)
    write_layers(target, outcome.layers)
    return target, done


def fit_candidates(
    model: nn.Module,
    reference: nn.Module,
    batches: list[Any],
    candidates: Mapping[str, tuple[int, ...]],
    *,
    budget: float = BUDGET,
    seed: int = 0,
    is_copy: bool = False,
) -> Outcome:
    """:func:`fit_layers` on copies of both networks, in float32 and evaluation mode.

    With ``is_copy`` the model is itself a copy that may be used up.
    """
    check_seed(seed)
    ours, theirs = _for_fitting(model if is_copy else copy_model(model)), _for_fitting(copy_model(reference))
    for name in candidates:
        _give_affine(ours.get_submodule(name), ours)
    return fit_layers(ours, theirs, batches, candidates, budget, seed)


def fixed_candidates(model: nn.Module, reference: nn.Module) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """The layers that can be calibrated, each with its own number of groups; and {layer: why not} for the others."""
    modules = dict(reference.named_modules(remove_duplicate=False))
    theirs = {id(modules[name]): norm for name, norm in inventory(reference).norms.items()}
    candidates: dict[str, tuple[int, ...]] = {}
    left: dict[str, str] = {}
    for name, norm in inventory(model).norms.items():
        module = model.get_submodule(name)
        other = theirs.get(id(modules.get(name)))
        if other is None:
            left[name] = "the reference has no normalization layer of this name"
        elif other.num_channels != norm.num_channels:
            left[name] = f"has {norm.num_channels} channels, and {other.num_channels} in the reference"
        elif isinstance(module, nn.GroupNorm):
            candidates[name] = (module.num_groups,)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            candidates[name] = (RUNNING,)
        else:
            left[name] = f"is a {norm.kind}, whose γ and β are not calibrated"
    return candidates, left


@torch.no_grad()
def write_layers(model: nn.Module, layers: Mapping[str, LayerFit]) -> None:
    """Give the layers of ``model`` what was fitted on a copy of it."""
    for name, layer in layers.items():
        module = model.get_submodule(name)
        _give_affine(module, model)
        for parameter, values in ((module.weight, layer.fit.gamma), (module.bias, layer.fit.beta)):
            assert isinstance(parameter, Tensor)
            parameter.copy_(torch.from_numpy(values).reshape(parameter.shape))
        if isinstance(module, nn.GroupNorm):
            module.num_groups, module.eps = layer.num_groups, layer.fit.eps


def _for_fitting(copy: nn.Module) -> nn.Module:
    copy = copy.eval()
    half = any(t.dtype in (torch.float16, torch.bfloat16) for t in (*copy.parameters(), *copy.buffers()))
    return copy.float() if half else copy


def _give_affine(module: nn.Module, model: nn.Module) -> None:
    """A γ of one and a β of zero where a layer was built without; of the device and dtype of what is there already."""
    there = (module.weight, module.bias, *model.parameters())
    like = next((t for t in there if isinstance(t, Tensor)), torch.empty(0))
    channels = int(module.num_channels if isinstance(module, nn.GroupNorm) else module.num_features)  # type: ignore[arg-type]
    for key, value in (("weight", 1.0), ("bias", 0.0)):
        if getattr(module, key) is None:
            setattr(module, key, nn.Parameter(torch.full((channels,), value, device=like.device, dtype=like.dtype)))
    module.affine = True  # type: ignore[assignment]
