"""A progress bar for what takes longer than a second."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

Steps = Callable[[], None]
"""Call it once a step."""

PATIENCE = 1.0
"""Seconds before a bar appears."""


@contextmanager
def steps(show: bool | None, what: str, total: int | None = None) -> Iterator[Steps]:
    """A bar on standard error that appears after :data:`PATIENCE`; ``show=None`` means only on a terminal.

    ``total`` is the most steps there can be, for a search may end early; None where there is but one.
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
    alarm = threading.Timer(PATIENCE, bar.start)
    alarm.daemon = True
    alarm.start()
    try:
        yield lambda: bar.advance(task)
    finally:
        alarm.cancel()
        alarm.join()
        bar.stop()
