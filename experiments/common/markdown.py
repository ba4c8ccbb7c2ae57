"""Markdown: tables, numbers with a true minus sign, and parts of a document that scripts write."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A GitHub table.

    >>> print(table(("network", "T"), [("resnet50", "−0.2")]))
    | network | T |
    |---|---|
    | resnet50 | −0.2 |
    """
    names = [str(name) for name in head]
    lines = [_row(names), "|" + "---|" * len(names), *(_row(map(str, row)) for row in rows)]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def minus(text: str) -> str:
    """``text`` of one number with a minus sign for its hyphen.

    >>> minus(f"{-1.5:+.1f}")
    '−1.5'
    """
    return text.replace("-", "−")


@dataclass(frozen=True)
class Table:
    """A title, a header, rows of text and a note beneath."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """A heading, a GitHub table and the note."""
        parts = [f"### {self.title}", table(self.header, self.rows), *([self.note] if self.note else [])]
        return "\n\n".join(parts) + "\n"


def replace_section(document: Path, name: str, text: str) -> None:
    """Put ``text`` between ``<!-- NAME -->`` and ``<!-- /NAME -->`` of ``document``; a new section goes to the end."""
    content = document.read_text(encoding="utf-8") if document.exists() else ""
    block = f"<!-- {name} -->\n{text.strip()}\n<!-- /{name} -->"
    pattern = re.compile(rf"<!-- {re.escape(name)} -->.*?<!-- /{re.escape(name)} -->", re.DOTALL)
    if pattern.search(content):
        content = pattern.sub(lambda _: block, content)
    else:
        content = f"{content.rstrip()}\n\n{block}\n".lstrip()
    document.write_text(content, encoding="utf-8")
