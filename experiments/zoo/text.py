"""Markdown tables and numbers."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

import numpy as np


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [f"| {' | '.join(map(str, head))} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def code(text: str) -> str:
    return f"`{text.replace('|', '/').replace('`', chr(39))[:200]}`" if text else ""


def percent(values: Iterable[bool]) -> str:
    values = list(values)
    return f"{sum(values) / len(values):.0%}" if values else "–"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def middle(values: Iterable[float]) -> str:
    values = [value for value in values if np.isfinite(value)]
    return number(median(values)) if values else "–"
