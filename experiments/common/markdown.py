"""Parts of a Markdown document that scripts write, between comments that name them."""

from __future__ import annotations

import re
from pathlib import Path


def replace_section(document: Path, name: str, text: str) -> None:
    """Put ``text`` between ``<!-- NAME -->`` and ``<!-- /NAME -->`` of ``document``; a new section goes to the end."""
    content = document.read_text() if document.exists() else ""
    block = f"<!-- {name} -->\n{text.strip()}\n<!-- /{name} -->"
    pattern = re.compile(rf"<!-- {re.escape(name)} -->.*?<!-- /{re.escape(name)} -->", re.DOTALL)
    if pattern.search(content):
        content = pattern.sub(lambda _: block, content)
    else:
        content = f"{content.rstrip()}\n\n{block}\n".lstrip()
    document.write_text(content)
