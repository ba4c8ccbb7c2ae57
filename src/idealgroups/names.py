"""Short names of layers: cut at a dot, with distinct names still distinct."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

from .text import shorten


def short_names(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return one name for each row of a table, in at most ``width`` characters.

    A row of several layers has its first name, its last name and their number. Where that is too long, first the last
    name loses whole components that it shares with the first one, then it is left out, then the first name loses
    components at its front. Names that would then look alike keep components at their front.

    Args:
        rows: the names of the layers of each row.
        width: characters. Where a component is too long for that, the middle of the name is left out; then names may
            look alike.

    >>> short_names([["layer1.0.bn1"], ["layer1.0.bn2", "layer1.0.bn3"]], 25)
    ['layer1.0.bn1', 'layer1.0.bn2 … 0.bn3 (2)']
    >>> short_names([["body.layer1.0.bn1"], ["body.layer1.0.bn2", "body.layer1.1.bn1"]], 20)
    ['body.layer1.0.bn1', '…layer1.0.bn2 … (2)']
    >>> short_names([["encoder.layer1.0.bn1"], ["decoder.layer1.0.bn1"]], 18)
    ['encoder…0.bn1', 'decoder…0.bn1']
    """
    deepest = max((name.count(".") for names in rows for name in names), default=0)
    chosen: dict[int, tuple[str, str]] = {}
    for kept in range(deepest + 1):
        left = {row: _short(names, width, kept) for row, names in enumerate(rows) if row not in chosen}
        count = Counter(first for first, _ in (*chosen.values(), *left.values()))
        chosen |= {row: short for row, short in left.items() if count[short[0]] == 1 or kept == deepest}
    return ["".join(chosen[row]) for row in range(len(rows))]


def full_name(names: Sequence[str]) -> str:
    """Return the first name, the last name and the number of several layers, or the one name.

    >>> full_name(["bn1"]), full_name(["bn1", "bn2", "bn3"])
    ('bn1', 'bn1 … bn3 (3)')
    """
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)})"


def _short(names: Sequence[str], width: int, kept: int) -> tuple[str, str]:
    """Return the first name, which keeps ``kept`` components at its front where it is cut, and the rest of a row."""
    first, last = names[0], names[-1]
    if len(names) == 1:
        return _cut(first, width, kept), ""
    count = f" ({len(names)})"
    tail = _tail(last, width - len(first) - len(" … ") - len(count))
    if len(tail) >= len(_apart(last, first)):
        return first, f" … {tail}{count}"
    return _cut(first, width - len(" …") - len(count), kept), f" …{count}"


def _apart(name: str, other: str) -> str:
    """Return a name without the components at its front that another name has too."""
    parts = name.split(".")
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(parts, other.split("."), strict=False)))
    return ".".join(parts[min(shared, len(parts) - 1) :])


def _tail(name: str, width: int) -> str:
    """Return the last components of a name that fit; an empty text if none fits."""
    while len(name) > width and name:
        name = name.partition(".")[2]
    return name


def _cut(name: str, width: int, kept: int) -> str:
    """Return a name with whole components left out behind its first ``kept`` ones, or with its middle left out.

    Its middle is left out where whole components would fill less than half of the width.
    """
    if len(name) <= width:
        return name
    parts = name.split(".")
    head = ".".join(parts[:kept])
    tail = _tail(".".join(parts[kept + 1 :]), width - len(head) - 1)
    return f"{head}…{tail}" if tail and len(head) + 1 + len(tail) >= width // 2 else shorten(name, width)
