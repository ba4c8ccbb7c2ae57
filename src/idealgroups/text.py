"""Plain text of a fixed width: tables, wrapped sentences, and ASCII where an output holds nothing else."""

from __future__ import annotations

import math
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

WIDTH = 80
"""Columns of an output that is no terminal."""

GAP = "  "

_ASCII = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "…": "...",
        "→": "->",
        "×": "x",
        "·": "*",
        "≥": ">=",
        "≤": "<=",
        "±": "+-",
        "‖": "||",
        "∂": "d",
        "√": "sqrt ",
        "γ": "gamma",
        "β": "beta",
        "ε": "eps",
        "ρ": "rho",
        "δ": "delta",
        "“": '"',
        "”": '"',
        "’": "'",
    }
)


def output_width(stream: TextIO | None = None) -> int:
    """Return the columns of the terminal, or :data:`WIDTH` if ``stream`` is none. The variable COLUMNS goes first.

    Args:
        stream: where the text goes; default standard output.
    """
    asked = os.environ.get("COLUMNS", "")
    if stream is not None and not (asked.isdigit() and int(asked)):
        with suppress(OSError, ValueError):  # no terminal; closed, or no file at all
            return os.get_terminal_size(stream.fileno()).columns or WIDTH
    return shutil.get_terminal_size((WIDTH, 24)).columns


def for_encoding(text: str, encoding: str | None) -> str:
    """Return ``text`` if ``encoding`` can hold it, else ASCII: a Greek letter becomes its name.

    >>> for_encoding("γ −0.12", "utf-8"), for_encoding("γ −0.12", "cp1252")
    ('γ −0.12', 'gamma -0.12')
    """
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")
    return text


def for_output(text: str) -> str:
    """Return ``text`` in what standard output can hold."""
    return for_encoding(text, getattr(sys.stdout, "encoding", None) or "utf-8")


def signed(value: float) -> str:
    """Return a number with its sign and two decimals; never −0.00.

    >>> signed(0.123), signed(-0.001), signed(-2.5), signed(float("nan"))
    ('+0.12', '+0.00', '−2.50', '–')
    """
    if not math.isfinite(value):
        return "–"
    return f"{value:+.2f}".replace("-0.00", "+0.00").replace("-", "−")


def decimal(value: float, digits: int) -> str:
    """Return a number with ``digits`` decimals and a true minus sign; never −0."""
    if not math.isfinite(value):
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def interval(values: Sequence[float], digits: int) -> str:
    """Return the smallest and the largest value, or the one value.

    >>> interval([2, 8, 4], 0), interval([2, 2], 0)
    ('2–8', '2')
    """
    low, high = decimal(min(values), digits), decimal(max(values), digits)
    return low if low == high else f"{low}–{high}"


def plural(number: int, word: str) -> str:
    """Return a number and its noun.

    >>> plural(1, "group"), plural(2, "group")
    ('1 group', '2 groups')
    """
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def shorten(text: str, width: int) -> str:
    """Return ``text`` in at most ``width`` characters, with its middle left out.

    >>> shorten("features.denseblock3.norm1", 16)
    'feature…k3.norm1'
    """
    if len(text) <= width:
        return text
    if width < 3:
        return "…"[:width]
    tail = width // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def paragraph(text: str, width: int) -> str:
    """Return ``text`` wrapped to ``width`` columns; further lines are indented. No-break spaces hold words together."""
    filled = textwrap.fill(text, width, subsequent_indent=GAP, break_long_words=False, break_on_hyphens=False)
    return filled.replace("\N{NO-BREAK SPACE}", " ")


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table. The first column is aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        GAP.join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]


def room_for_names(header: Sequence[str], rows: Sequence[Sequence[str]], width: int, least: int = 12) -> int:
    """Return how many columns the first column has if all others are written in full; at least ``least``."""
    others = [max(map(len, column)) for column in list(zip(header, *rows, strict=True))[1:]]
    return max(least, width - sum(others) - len(GAP) * len(others))
