"""Read and write text files; every failure is one sentence."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from .errors import IdealGroupsError


def read_text(path: Any, what: str) -> str:
    """Return the text of the file at ``path``; ``what`` names it in an error ("the plan").

    Raises:
        IdealGroupsError: no such file, no permission, no text.
    """
    try:
        return _path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise IdealGroupsError(f"{path} is not a text file, so {what} cannot be read from it.") from None
    except (OSError, ValueError) as error:
        raise IdealGroupsError(f"cannot read {what} {path!s}: {_reason(error)}.") from None


def write_text(path: Any, text: str, what: str) -> None:
    """Write ``text`` to ``path``. An ordinary file is complete or left as it was; links, pipes and devices stay.

    Raises:
        IdealGroupsError: the file cannot be written. A file that was there is still there.
    """
    target = _path(path)
    try:
        real = Path(os.path.realpath(target))  # a symbolic link keeps pointing to the file that is written
        if real.exists() and not stat.S_ISREG(real.stat().st_mode):
            real.write_text(text, encoding="utf-8")
        else:
            _replace(real, text)
    except (OSError, ValueError) as error:
        raise IdealGroupsError(f"cannot write {what} to {path!s}: {_reason(error)}.") from None


def _replace(path: Path, text: str) -> None:
    """Write a new file beside ``path``, then move it there."""
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
    partial = path.with_name(f".{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            partial.chmod(mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _path(path: Any) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise IdealGroupsError(f"a path is a str or a Path, not {path!r}.") from None


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
