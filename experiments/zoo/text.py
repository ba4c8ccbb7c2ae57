"""Cells of the zoo's tables."""

from __future__ import annotations

from collections.abc import Iterable

from ..common.markdown import minus


def code(text: str) -> str:
    return f"`{text.replace('|', '/').replace('`', chr(39))[:200]}`" if text else ""


def percent(values: Iterable[bool]) -> str:
    values = list(values)
    return f"{sum(values) / len(values):.0%}" if values else "–"


def number(value: float | None) -> str:
    return "–" if value is None else minus(f"{value:.2f}")
