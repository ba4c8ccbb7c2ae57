"""The same grid on a Ray cluster: one Ray Core task a job, data sets through the object store."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from idealgroups.errors import IdealGroupsError

from .config import Images
from .data import Dataset, load
from .engines import J, R, Work, single_thread

RETRIES = 10
"""Times a task is started anew when its node or worker dies. An exception in the task itself is not retried."""

KNOCK_SECONDS = 10


class RayEngine:
    """Tasks of ``cpus`` cores and ``gpus`` GPUs (fractions share one) on the cluster at ``address``.

    Without an address Ray is started on this machine for the time of the study. Only this process reads data files;
    nodes need the same Python packages and nothing else.

    Raises:
        IdealGroupsError: Ray is not installed, or no cluster answers at the address.
    """

    def __init__(
        self, address: str | None = None, folder: str | Path = "data", cpus: float = 1, gpus: float = 0
    ) -> None:
        try:
            import ray
        except ImportError:
            raise IdealGroupsError("--engine ray needs Ray; install idealgroups[ray].") from None
        self._ray: Any = ray
        self._address = address
        self._folder = Path(folder)
        self._resources = {"num_cpus": cpus, "num_gpus": gpus}

    def __enter__(self) -> RayEngine:
        if self._address is not None:
            _knock(self._address)
        try:
            self._ray.init(address=self._address, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            reason = str(error).strip().split("\n")[0]
            raise IdealGroupsError(f"cannot start or reach Ray ({reason}); see `ray status`.") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()

    def map(self, work: Work[J, R], jobs: Sequence[J]) -> Iterator[tuple[J, R]]:
        """See :class:`engines.Engine`. Tasks of a node that died are done by the others."""
        remote = self._ray.remote(max_retries=RETRIES, **self._resources)(_work)
        datasets: dict[Images, Any] = {}
        for job in jobs:
            if job.images not in datasets:
                datasets[job.images] = self._ray.put(load(job.images, self._folder))
        tasks = {remote.remote(work, job, datasets[job.images]): job for job in jobs}
        while tasks:
            (done,), _ = self._ray.wait(list(tasks), num_returns=1)
            job = tasks.pop(done)
            yield job, self._ray.get(done)


def _knock(address: str) -> None:
    """Ray itself would try for minutes, and then end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "auto"
        return
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise IdealGroupsError(
            f"no Ray cluster answers at {address} ({error}); `ray start --head` starts one and prints its address."
        ) from None


def _work(work: Work[J, R], job: J, dataset: Dataset) -> R:
    single_thread()
    return work(job, dataset)
