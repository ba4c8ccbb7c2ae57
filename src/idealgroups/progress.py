"""A progress bar for what takes longer than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

Steps = Callable[[], None]
"""Call it once a step."""

PATIENCE = 1.0
"""Seconds before a bar appears."""


@contextmanager
def steps(show: bool | None, what: str, total: int) -> Iterator[Steps]:
    """A bar on standard error that appears after :data:`PATIENCE`; ``show=None`` means only on a terminal.

    ``total`` is the most steps there can be: a search may end early.
    """
    show = sys.stderr.isatty() if show is None else show
    if not show:
        yield lambda: None
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} passes"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(what, total=total)
    started = time.perf_counter()

    def advance() -> None:
        if not bar.live.is_started and time.perf_counter() - started > PATIENCE:
            bar.start()
        bar.advance(task)

    try:
        yield advance
    finally:
        bar.stop()
