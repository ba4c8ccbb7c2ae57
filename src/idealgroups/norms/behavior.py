"""Tells by trial whether a layer of an unknown class normalizes, and how.

A layer that maps (N, C, …) to the same shape and does not care for the scale of its input normalizes. Where it is group
norm, layer norm over channels or batch norm, with any names of its parameters, a plan can be made for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import UninitializedParameter

from .forward import example, first_shapes, last_shapes, quietly, run, twin_of
from .norm import ACTIVATIONS, Norm

MAX_CHANNELS = 1 << 16
"""A vector of more values is no scale of channels (it would be a flattened weight)."""

EPSILONS = (1e-5, 1e-6, 1e-8, 1e-3, 1e-4, 1e-7, 1e-12)
"""Values of ε in use, the likeliest first."""

_COUNTS = ("num_features", "num_channels", "normalized_shape")
"""Attributes that tell the number of channels where there is no parameter."""


@dataclass(frozen=True)
class Odd:
    """A layer that normalizes, but that no group norm stands for. ``last``: it normalizes the last dimension."""

    why: str
    last: bool = False


@dataclass(frozen=True)
class _Guess:
    """A standard layer without its scale and shift."""

    num_groups: int | None
    is_batch: bool

    def normalize(self, x: Tensor, eps: float) -> Tensor:
        """Group norm, batch norm, or layer norm over the channels of each position."""
        if self.is_batch:
            return F.batch_norm(x, None, None, training=True, eps=eps)
        if self.num_groups is not None:
            return F.group_norm(x, self.num_groups, eps=eps)
        return F.layer_norm(x.movedim(1, -1), (x.shape[1],), eps=eps).movedim(-1, 1)


def identify(module: nn.Module, after: tuple[str, ...] = ()) -> Norm | Odd | None:
    """What ``module`` does: a layer to plan for, a layer that normalizes in another way, or None for anything else.

    Only what torch itself keeps of the module is read; its forward runs on a copy and small inputs. ``after``: names of
    its children, which it applies to its output.
    """
    sizes = _channel_counts(module)
    if not sizes:
        return None
    try:
        twin = twin_of(module)
        later = twin_of(module)
    except Exception:  # what cannot be copied is named when the model is
        return None
    with quietly():
        _age(later)
        for channels in sizes:
            found = _identify(module, twin, later, channels, after)
            if found is not None:
                return found
    return None


def normalizes(twin: nn.Module, x: Tensor) -> bool:
    """Whether four times ``x`` has the same output as ``x``, and another ``x`` another one (with a sign it has not)."""
    y, scaled = run(twin, x, training=True), run(twin, 4 * x, training=True)
    moved = run(twin, x + 0.05 * example(x.shape).flip(0), training=True)
    if isinstance(y, str) or isinstance(scaled, str) or isinstance(moved, str) or not bool(y.isfinite().all()):
        return False
    scale = float(y.abs().max())
    changed = (moved - y).abs() > 1e-5 * scale
    return torch.allclose(scaled, y, rtol=1e-2, atol=1e-2 * scale) and float(changed.float().mean()) > 0.2


def mixes_samples(twin: nn.Module, x: Tensor) -> bool:
    """Whether a change of the first sample changes the output of the others."""
    return _mixes(twin, x, 0)


def _mixes_positions(twin: nn.Module, x: Tensor) -> bool:
    """Whether a change of the vector at the first position of an ``x`` (N, …, C) changes the output anywhere else."""
    return _mixes(twin, x, -2)


def _mixes(twin: nn.Module, x: Tensor, until: int) -> bool:
    """Whether the first item reaches the output of others; items are told apart by dimensions 0 to ``until``."""
    other = x.flatten(0, until).clone()
    other[0] = 3 * other[0].flip(0) + 1
    y, z = run(twin, x, training=True), run(twin, other.reshape(x.shape), training=True)
    if isinstance(y, str) or isinstance(z, str):
        return False
    y, z = y.flatten(0, until), z.flatten(0, until)
    return not torch.allclose(y[1:], z[1:], rtol=1e-3, atol=1e-3 * float(y.abs().max()))


def _identify(
    module: nn.Module, twin: nn.Module, later: nn.Module, channels: int, after: tuple[str, ...]
) -> Norm | Odd | None:
    kind = type(module).__name__
    last = [x for shape in last_shapes(channels) if normalizes(twin, x := example(shape))]
    if last and not any(_mixes_positions(twin, x) for x in last):
        return Odd(f"{kind} normalizes the last dimension, not the channels of (N, C, …)", last=True)
    inputs = [x for x in map(example, first_shapes(channels)) if isinstance(run(twin, x, training=True), Tensor)]
    # Two channels at one position become 1 and -1, which no small change of the input changes.
    first = any(channels <= 2 or normalizes(twin, x) or normalizes(later, x) for x in inputs)
    if not first and not last:
        return None
    norm = _as_standard(later, kind, channels, inputs, after) if first else None
    if norm is not None or (channels <= 2 and not last):
        return norm
    if any(mixes_samples(twin, x) for x in (*last, *inputs)):
        return Odd(f"{kind} normalizes over the samples of a batch in a way of its own, which couples them")
    return Odd(f"{kind} normalizes in a way of its own, which no group norm stands for")


def _channel_counts(module: nn.Module) -> list[int]:
    """How many channels the layer may have: the values of its parameters, or these times a whole number it keeps."""
    parameters = [p for p in module._parameters.values() if p is not None]
    if any(isinstance(p, UninitializedParameter) or max(p.shape, default=1) != p.numel() for p in parameters):
        return []
    ints = {key: value for key, value in vars(module).items() if type(value) is int and 1 < value <= MAX_CHANNELS}
    if not parameters:
        shape = vars(module).get("normalized_shape")
        ints |= {"normalized_shape": shape[0]} if isinstance(shape, tuple) and len(shape) == 1 else {}
        return [ints[key] for key in _COUNTS if key in ints][:1]
    sizes = {p.numel() for p in parameters}
    count = sizes.pop()
    if sizes or not 0 < count <= MAX_CHANNELS:
        return []
    # FedML keeps one scale a group, and the channels of a group as a number.
    return [count, *sorted({count * k for k in ints.values() if count * k <= MAX_CHANNELS})[:3]]


def _age(twin: nn.Module) -> None:
    """Parameters that differ from each other and from channel to channel, and the statistics of a long training."""
    for number, parameter in enumerate(p for p in twin._parameters.values() if p is not None):
        ramp = torch.linspace(4, 6, parameter.numel()) if number == 0 else torch.linspace(-3, -5, parameter.numel())
        parameter.copy_(ramp.reshape(parameter.shape))
    for buffer in (b for b in twin._buffers.values() if b is not None):
        if buffer.layout is not torch.strided or buffer.is_quantized:
            continue
        if not buffer.is_floating_point():
            buffer.fill_(1_000_000 if buffer.numel() == 1 and buffer.dtype == torch.int64 else 1)
        elif buffer.numel() > 1:
            buffer.mul_(2).add_(0.5)


def _as_standard(
    twin: nn.Module, kind: str, channels: int, inputs: list[Tensor], after: tuple[str, ...]
) -> Norm | None:
    """The standard layer that agrees with ``twin`` on every one of ``inputs``, in training and in evaluation."""
    trained = [run(twin, x, training=True) for x in inputs]
    evaluated = [run(twin, x, training=False) for x in inputs]
    named = [value for key, value in vars(twin).items() if "eps" in key and type(value) is float and value > 0]
    for eps, guess in itertools.product((*named, *EPSILONS), _guesses(channels)):
        normalized = [guess.normalize(x, eps) for x in inputs]
        blank = Norm(
            kind=kind,
            num_channels=channels,
            eps=eps,
            num_groups=guess.num_groups,
            weight=None,
            bias=None,
            after=after,
            over_batch=guess.is_batch,
        )
        for norm in _with_roles(blank, twin):
            if all(_fits(y, twin, norm, z) for y, z in zip(trained, normalized, strict=True)) and all(
                isinstance(y, str) or _is_affine(x, y) or (not guess.is_batch and _fits(y, twin, norm, z))
                for x, y, z in zip(inputs, evaluated, normalized, strict=True)
            ):
                return replace(norm, eps=_eps(twin, norm, guess, inputs[0]))
    return None


def _guesses(channels: int) -> Iterator[_Guess]:
    yield _Guess(None, False)
    yield _Guess(None, True)
    for groups in (g for g in range(1, channels + 1) if channels % g == 0):
        yield _Guess(groups, False)


def _with_roles(blank: Norm, twin: nn.Module) -> Iterator[Norm]:
    """``blank`` with every way to take the parameters of ``twin`` for a scale and a shift, then an activation."""
    sizes = {name: p.numel() for name, p in twin._parameters.items() if p is not None}
    roles: list[tuple[str | None, ...]] = [(None, None)]
    if len(sizes) == 1:
        (name,) = sizes
        roles = [(name, None), (None, name)]
    elif sizes:
        roles = list(itertools.permutations(sizes, 2)) if len(sizes) == 2 else []
    repeats = blank.num_channels // next(iter(sizes.values()), blank.num_channels)
    activations = (None,) if blank.after else (None, *ACTIVATIONS)
    for activation, (weight, bias) in itertools.product(activations, roles):
        yield replace(blank, weight=weight, bias=bias, repeats=repeats, activation=activation)


def _fits(y: Tensor | str, twin: nn.Module, norm: Norm, z: Tensor, tolerance: float = 2e-3) -> bool:
    """Whether ``y`` is ``z`` scaled, shifted and finished; of one sample, the variance may be divided by m - 1."""
    if isinstance(y, str):
        return False
    return any(torch.allclose(y, expected, rtol=tolerance, atol=tolerance) for expected in _finished(twin, norm, z))


def _finished(module: nn.Module, norm: Norm, z: Tensor) -> Iterator[Tensor]:
    """What becomes of the normalized ``z``; of one sample also with the variance divided by m - 1."""
    size = z[0].numel() // (norm.num_groups or z[0, 0].numel())
    for factor in (1.0,) if norm.over_batch else (1.0, ((size - 1) / size) ** 0.5):
        yield norm.finish(module, _scaled(module, norm, factor * z))


def _scaled(twin: nn.Module, norm: Norm, z: Tensor) -> Tensor:
    ones = [1] * (z.ndim - 2)
    gamma, beta = norm.scale(twin), norm.shift(twin)
    z = z if gamma is None else z * gamma.reshape(-1, *ones)
    return z if beta is None else z + beta.reshape(-1, *ones)


def applied(module: nn.Module, norm: Norm, x: Tensor) -> Iterator[Tensor]:
    """What ``norm`` makes of ``x`` with the parameters of ``module``, with either way to write the variance."""
    guess = _Guess(norm.num_groups, norm.over_batch)
    return _finished(module, norm, guess.normalize(x, norm.eps))


def _is_affine(x: Tensor, y: Tensor) -> bool:
    """Whether each channel of ``y`` is one straight line in ``x``, as with running statistics."""
    x, y = (v.movedim(1, 0).flatten(1).double() for v in (x, y))
    x = x - x.mean(1, keepdim=True)
    off = y - y.mean(1, keepdim=True)
    slope = (x * off).sum(1, keepdim=True) / (x * x).sum(1, keepdim=True)
    return bool((off - slope * x).abs().max() <= 1e-3 * y.abs().max())


def _eps(twin: nn.Module, norm: Norm, guess: _Guess, x: Tensor) -> float:
    """The ε that explains what ``twin`` does to small numbers, which it moves."""
    x = 1e-2 * x
    y = run(twin, x, training=True)
    tried = (norm.eps, *EPSILONS)
    return next((eps for eps in tried if _fits(y, twin, norm, guess.normalize(x, eps))), norm.eps)
