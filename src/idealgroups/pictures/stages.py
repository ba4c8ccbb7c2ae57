"""Put the layers of a network on one axis of depth, and find its stages in their names. No torch, no drawing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

FEW_STAGES, MOST_STAGES = 4, 24
"""Names are split until there are at least so many stages, and at most so many."""


@dataclass(frozen=True)
class Stage:
    """Neighboring layers with a common start of their names. ``stop`` is behind the last one."""

    name: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def stages(names: Sequence[str]) -> list[Stage]:
    """Return the stages of layers in execution order.

    The longest stage is split by the next part of its names until there are a few stages and none holds more than half
    of the layers.

    >>> [stage.name for stage in stages(["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "fc"])]
    ['conv1', 'layer1', 'layer2', 'fc']
    """
    parts = [tuple(name.split(".")) for name in names]
    found = _split(parts, 0, len(parts), 0)
    while True:
        half = [stage for stage in found if 2 * len(stage) > len(parts)]
        longest = sorted(found if len(found) < FEW_STAGES else half, key=len, reverse=True)
        for stage in longest:
            pieces = _split(parts, stage.start, stage.stop, len(stage.name.split(".")))
            if 1 < len(pieces) <= MOST_STAGES - len(found) + 1:
                at = found.index(stage)
                found[at : at + 1] = pieces
                break
        else:
            return found


def _split(parts: Sequence[tuple[str, ...]], start: int, stop: int, depth: int) -> list[Stage]:
    """Return runs of equal names; as many parts longer than ``depth`` as it takes to have two runs."""
    deepest = max((len(parts[i]) for i in range(start, stop)), default=0)
    runs: list[Stage] = []
    for length in range(depth + 1, deepest + 1):
        runs, at = [], start
        for key, members in groupby(range(start, stop), key=lambda i: parts[i][:length]):
            count = len(list(members))
            runs.append(Stage(".".join(key), at, at + count))
            at += count
        if len(runs) > 1:
            break
    return runs


def places(weights: Sequence[str], norms: Sequence[str]) -> list[int]:
    """Return the index of the weight layer beside which each norm stands; both are in execution order.

    The order is kept, and of all such pairings the one with the most alike names is taken.

    >>> places(["conv1", "layer1.conv1", "layer1.conv2", "fc"], ["bn1", "layer1.bn1", "layer1.bn2"])
    [0, 1, 2]
    """
    if not weights:
        return list(range(len(norms)))
    alike = [[_alike(norm, weight) for weight in weights] for norm in norms]
    best = [0.0] * len(weights)
    came: list[list[int]] = []
    for row in alike:
        fresh, back = [0.0] * len(weights), [0] * len(weights)
        top, top_at = float("-inf"), 0
        for j, score in enumerate(row):
            stay = best[j] - 0.5  # two norms beside one weight layer
            back[j] = top_at if top >= stay else j
            fresh[j] = score + (max(top, stay) if came else 0.0)
            if best[j] > top:
                top, top_at = best[j], j
        best, came = fresh, [*came, back]
    at = max(range(len(weights)), key=lambda j: best[j]) if norms else 0
    found = []
    for back in reversed(came):
        found.append(at)
        at = back[at]
    return found[::-1]


def _alike(one: str, other: str) -> float:
    """How many parts two names share from the start, and a little more if what follows has near or equal numbers."""
    ones, others = one.split("."), other.split(".")
    shared = 0
    while shared < min(len(ones), len(others)) and ones[shared] == others[shared]:
        shared += 1
    rest, other_rest = ones[shared:], others[shared:]
    if not rest or not other_rest:
        return float(shared)
    if rest[0].isdigit() and other_rest[0].isdigit():
        return shared + 0.4 / (1 + abs(int(rest[0]) - int(other_rest[0])))
    same = re.findall(r"\d+$", rest[0]) == re.findall(r"\d+$", other_rest[0]) != []
    return shared + (0.25 if same else 0.0)
