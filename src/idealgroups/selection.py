"""Choose layers by patterns of their names: ``include=`` and ``exclude=``."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .errors import IdealGroupsError


@dataclass(frozen=True)
class Patterns:
    """Which layer names to take: all, or those that match ``include``; and none that matches ``exclude``."""

    include: str | Collection[str] | None = None
    exclude: str | Collection[str] | None = None

    def __post_init__(self) -> None:
        for name in ("include", "exclude"):
            value = getattr(self, name)
            if isinstance(value, Iterable) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))  # a generator can be read once only

    def why_not(self, name: str) -> str | None:
        """The reason ``name`` is not taken, or None.

        >>> Patterns(exclude="stem.*").why_not("stem.bn")
        'matches exclude'
        """
        if self.include is not None and not _matches(name, self.include):
            return "does not match include"
        return "matches exclude" if self.exclude is not None and _matches(name, self.exclude) else None

    def check(self, names: Iterable[str]) -> None:
        """Raise if a pattern matches none of ``names``: a typo that would otherwise go unnoticed."""
        names = list(names)
        for pattern in (*_listed(self.include), *_listed(self.exclude)):
            if not isinstance(pattern, str):
                raise IdealGroupsError(
                    f"{pattern!r} is no pattern; give names of layers as in 'layer4.*', or a list of them."
                )
            if not any(fnmatchcase(name, pattern) for name in names):
                inside = any(name.startswith(f"{pattern}.") for name in names)
                hint = f"for all that is in it write '{pattern}.*'" if inside else nearest(pattern.rstrip(".*"), names)
                raise IdealGroupsError(f"the pattern {pattern!r} matches no normalization layer; {hint}.")


def _listed(patterns: str | Collection[str] | None) -> Collection[str]:
    if patterns is None:
        return ()
    return patterns if isinstance(patterns, list | tuple | set | frozenset) else (patterns,)


def _matches(name: str, patterns: str | Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _listed(patterns))


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a clause that names the layer of ``names`` nearest to ``name``, or the first of them."""
    names = [name for name in names if name]
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"the nearest name is {near[0]}"
    if not names:
        return "it has none"
    more = ", …" if len(names) > 3 else ""
    return f"its normalization layers are {', '.join(names[:3])}{more}"
