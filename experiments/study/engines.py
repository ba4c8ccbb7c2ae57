"""Where jobs are computed: processes on this machine. A cluster is in :mod:`ray_engine`; both give the same results."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from idealgroups.errors import IdealGroupsError

from .config import Images
from .data import Dataset, load


class Job(Protocol):
    """Picklable, and says which images it needs."""

    @property
    def images(self) -> Images:
        """The data set it needs."""


J = TypeVar("J", bound=Job)
R = TypeVar("R")
Work = Callable[[J, Dataset], R]

MAX_CRASHES = 3
"""Times in a row that worker processes may be killed (by the system, for memory, say) before the study gives up."""


class Engine(Protocol):
    """A context manager that maps work over jobs."""

    def __enter__(self) -> object:
        """Start workers."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop them."""

    def map(self, work: Work[J, R], jobs: Sequence[J]) -> Iterator[tuple[J, R]]:
        """(job, result) as they finish, in any order. What ``work`` raises is raised here."""


class LocalEngine:
    """``workers`` processes, one torch thread each: for small networks that beats one process with many threads."""

    def __init__(self, workers: int | None = None, folder: str | Path = "data") -> None:
        self._workers = workers or available_cores()
        self._folder = Path(folder)
        self._pool: ProcessPoolExecutor | None = None
        self._others: set[multiprocessing.process.BaseProcess] = set()

    def __enter__(self) -> LocalEngine:
        self._others = set(multiprocessing.active_children())
        self._pool = self._new_pool()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._pool is not None
        self._pool.shutdown(wait=kind is None, cancel_futures=True)
        if kind is not None:  # interrupted: do not wait for the runs in progress
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()

    def map(self, work: Work[J, R], jobs: Sequence[J]) -> Iterator[tuple[J, R]]:
        """See :class:`Engine`. Jobs whose worker was killed are given to a new one."""
        assert self._pool is not None
        left = dict(enumerate(jobs))
        crashes = 0
        while left:
            futures: dict[Future[Any], int] = {}
            try:
                for index, job in left.items():
                    futures[self._pool.submit(_work, work, job, self._folder)] = index
                pending = set(futures)
                while pending:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        result: R = future.result()
                        job = left.pop(futures[future])
                        crashes = 0
                        yield job, result
            except BrokenProcessPool:
                crashes += 1
                if crashes >= MAX_CRASHES:
                    raise IdealGroupsError(
                        "worker processes were killed several times in a row, perhaps for lack of memory; "
                        "use fewer with --jobs."
                    ) from None
                self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        context = _context()
        return ProcessPoolExecutor(self._workers, mp_context=context, initializer=_start_worker)


def _context() -> multiprocessing.context.BaseContext:
    """Where the system can, workers are forked from a process that has imported torch and runs no thread."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["experiments.study.train"])
    return context


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def single_thread() -> None:
    """One torch thread in this process; the order of sums, and so every bit of a result, depends on it.

    On a GPU: convolutions in the same order every time, and in full precision.
    """
    import torch

    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and stops the workers
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    single_thread()


def _exit_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(work: Work[J, R], job: J, folder: Path) -> R:
    return work(job, load(job.images, folder))
