"""Show how far a computation of several passes is, if it takes longer than a second."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Steps = Callable[[], None]
"""Call it after every pass."""

PATIENCE = 1.0
"""Seconds before a terminal shows the number of the pass."""

LONG = 10.0
"""Seconds that a computation must be expected to take before a line about it is written where there is no terminal."""


@contextmanager
def steps(show: bool | None, what: str, total: int | None = None) -> Iterator[Steps]:
    """Show on standard error what is being done.

    A terminal shows ``planning: pass 3 of about 6`` after :data:`PATIENCE`, in a line that is rewritten and removed at
    the end. Anything else gets one line, and only if the whole is expected to take longer than :data:`LONG`.

    Args:
        show: True for the terminal's form everywhere, False for nothing.
        what: is being done, as in "planning".
        total: about how many passes it takes; None for a single pass.
    """
    if show is False:
        yield lambda: None
        return
    line: _Line = _Terminal(what, total) if show or sys.stderr.isatty() else _Log(what, total)
    alarm = threading.Timer(line.patience, line.show)
    alarm.daemon = True
    alarm.start()
    try:
        yield line.advance
    finally:
        alarm.cancel()
        alarm.join()
        line.close()


class _Line:
    """What is shown of a number of passes; subclasses write it."""

    patience: float

    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total, self.done = what, total, 0
        self.shown = False
        self.started = time.monotonic()

    def show(self) -> None:
        raise NotImplementedError

    def advance(self) -> None:
        self.done += 1

    def close(self) -> None:
        pass


class _Terminal(_Line):
    def __init__(self, what: str, total: int | None) -> None:
        super().__init__(what, total)
        self.patience = PATIENCE
        self.lock = threading.Lock()

    def show(self) -> None:
        with self.lock:
            self.shown = True
            self._write()

    def advance(self) -> None:
        with self.lock:
            super().advance()
            if self.shown:
                self._write()

    def close(self) -> None:
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _write(self) -> None:
        text = f"{self.what}{_pass(self.done + 1, self.total)}"
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


class _Log(_Line):
    def __init__(self, what: str, total: int | None) -> None:
        super().__init__(what, total)
        self.patience = LONG

    def show(self) -> None:
        """Write the line if the first pass has not ended after :data:`LONG`."""
        if not self.shown:
            passes = "" if self.total is None else f", about {self.total} passes"
            self._write(f"{passes} of more than {LONG:.0f} s" if passes else f" takes longer than {LONG:.0f} s")

    def advance(self) -> None:
        super().advance()
        if self.done == 1 and self.total is not None and not self.shown:
            seconds = (time.monotonic() - self.started) * self.total
            if seconds > LONG:
                self._write(f", about {self.total} passes, roughly {_rounded(seconds)} s")

    def _write(self, rest: str) -> None:
        self.shown = True
        print(f"{self.what}{rest}", file=sys.stderr, flush=True)


def _pass(number: int, total: int | None) -> str:
    if total is None:
        return ""
    return f": pass {number} of about {total}" if number <= total else f": pass {number}"


def _rounded(seconds: float) -> int:
    """Return seconds with two digits.

    >>> _rounded(12.3), _rounded(123.4)
    (12, 120)
    """
    return int(float(f"{seconds:.2g}"))
