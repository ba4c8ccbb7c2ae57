"""The closed form: every weight-GN-ReLU block isometric by itself, from shapes alone. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .formulas import MIN_GROUP_CHANNELS, RELU_MEAN_SHARE, gaussian_gain, next_mean_share
from .grouping import largest_divisor, least_elements, safe_groups
from .layer import Layer, WeightShape

PRECISION = 1e-6
"""Relative precision of the real-valued group size."""


def block_group_size(layer: Layer, mean_share: float = RELU_MEAN_SHARE) -> float:
    """Return the real-valued group size c at which the layer's gain b(c) against one group is log r.

    b(c) = ``gaussian_gain(c, S, ρ)`` - ``gaussian_gain(C, S, ρ)`` falls with c, so bisection inverts it. The result is
    C where r ≤ 1, and at least two channels and 32 elements (128 with one position a channel).

    Args:
        layer: its channels, positions and weight layer.
        mean_share: ρ of the layer's input.
    """
    channels, positions = layer.num_channels, layer.positions
    low, high = max(MIN_GROUP_CHANNELS, least_elements(layer.flat) / positions), float(channels)
    wanted = math.log(layer.ratio)
    if wanted <= 0 or low >= high:
        return high
    whole = gaussian_gain(high, positions, mean_share)
    if gaussian_gain(low, positions, mean_share) - whole <= wanted:
        return low
    while high > low * (1 + PRECISION):
        middle = math.sqrt(low * high)
        if gaussian_gain(middle, positions, mean_share) - whole > wanted:
            low = middle
        else:
            high = middle
    return high


def block_groups(layers: Sequence[Layer]) -> tuple[dict[str, int], dict[str, float], dict[str, str]]:
    """Return the groups, the real-valued numbers and the notes of the closed form for ``layers`` in execution order.

    ρ starts at 1/π and follows the layers by :func:`next_mean_share`, each with the group size it was given.
    """
    groups, ideals, notes = {}, {}, {}
    mean_share = RELU_MEAN_SHARE
    for layer in layers:
        ideals[layer.name] = layer.num_channels / block_group_size(layer, mean_share)
        wanted = largest_divisor(layer.num_channels, ideals[layer.name] + PRECISION)
        number, small = safe_groups(layer.num_channels, layer.positions, wanted, least_elements(layer.flat))
        groups[layer.name] = number
        notes[layer.name] = "; ".join(part for part in (block_note(layer.weight), small) if part)
        mean_share = next_mean_share(mean_share, layer.num_channels / number)
    return groups, ideals, notes


def block_note(weight: WeightShape | None) -> str:
    """Return what led to the number: the channels in and out and the stride of the weight layer.

    >>> block_note(WeightShape(in_channels=64, out_channels=128, in_positions=4096, out_positions=1024))
    'r = 2: 64 channels in, 128 out, stride 2'
    """
    if weight is None:
        return "r = 1: it belongs to no weight layer"
    parts = [f"{weight.in_channels} channels in", f"{weight.out_channels} out"]
    if weight.stride != 1:
        area = weight.stride if weight.stride > 1 else 1 / weight.stride
        side = f"{math.sqrt(area):g}" if math.isqrt(round(area)) ** 2 == area else f"√{area:g}"
        parts.append(f"stride {side}" if weight.stride > 1 else f"upsampling {side}")
    return f"r = {weight.ratio:.3g}: {', '.join(parts)}"
