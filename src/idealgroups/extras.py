"""Import libraries that are needed for some things only, and say how to install them where they are missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import IdealGroupsError


def require(module: str, what: str, install: str) -> Any:
    """Return an imported module.

    Args:
        module: its name.
        what: needs it, in the plural ("plots").
        install: what pip installs to get it.

    Raises:
        IdealGroupsError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise IdealGroupsError(f"{what} need {module.partition('.')[0]}; pip install {install}.") from None
