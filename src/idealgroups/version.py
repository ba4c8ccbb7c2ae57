"""The versions that made a result."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """Return the version of idealgroups; ``unknown`` in a checkout that is not installed."""
    try:
        return version("idealgroups")
    except PackageNotFoundError:
        return "unknown"


@cache
def made_with() -> str:
    """Return the versions of idealgroups and torch, as a plan keeps them."""
    return f"idealgroups {own_version()}, torch {version('torch')}"
