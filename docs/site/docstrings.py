"""Docstrings as Markdown: examples become code, and references to other names become plain names."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)
ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):`[~.!]*([^`]*)`")


class Readable(Extension):
    """Rewrites every docstring once it has been read."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Put each doctest into a block of its own."""
        if obj.docstring:
            text = ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
