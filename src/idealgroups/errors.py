"""The exceptions that a user of this library meets."""

from __future__ import annotations

from textwrap import shorten
from typing import Any


class IdealGroupsError(Exception):
    """An error the caller can fix. The message is one sentence that says what is wrong and what to do.

    ``cause``: the exception behind it, for example what the model raised; None if there is none.

    >>> IdealGroupsError("the model raised ValueError.", cause=ValueError("too small")).cause
    ValueError('too small')
    """

    def __init__(self, message: str = "", *, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.cause = cause

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the cause behind: other people's exceptions need not survive a pickle."""
        return type(self), (str(self),)


MOST = 200
"""Characters that are quoted of the message of another library."""


class NoNormalizationError(IdealGroupsError):
    """The model has no normalization layer that a plan could be made for."""


class InternalError(IdealGroupsError):
    """A fault of this library, not of the caller: nothing to fix, something to report."""


def one_line(error: BaseException) -> str:
    """Return class and message of ``error`` without line breaks, at most so many words as fit into 200 characters.

    >>> one_line(ValueError("far too long " * 40))[-6:], one_line(AssertionError())
    (' far …', 'AssertionError')
    """
    message = shorten(str(error), MOST, placeholder=" …")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed: on an accelerator, in torch's allocator for the CPU, or in Python.

    >>> is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."))
    True
    """
    named = type(error).__name__ in ("OutOfMemoryError", "MemoryError")
    return named or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))


class internal:  # noqa: N801 — a context, and one written as a class takes a third of the time
    """Turn an exception from code of our own into an :class:`InternalError`, so that no user is blamed for it.

    An allocation that fails is nobody's fault, and an :class:`IdealGroupsError` has its sentence already.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or not isinstance(error, Exception):
            return
        if isinstance(error, IdealGroupsError) or is_out_of_memory(error):
            return
        raise InternalError(
            f"internal error of idealgroups while {self._doing} ({one_line(error)}); "
            "this is a fault of the library and not of your model: please report it with the traceback above.",
            cause=error,
        ) from error
