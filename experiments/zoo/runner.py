"""Each case in a process of its own, with a limit on processor time and memory; results appended as they come."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..common.jsonl import append_records, load_records
from .cases import Case, find
from .examine import Enter, examine

Examination = Callable[[Case, Enter], dict[str, Any]]

PRELOAD = ("torch", "idealgroups.api", "experiments.zoo.examine")
"""Imported once; every process is a fork of that one, before it has run anything."""


@dataclass
class Running:
    key: str
    process: BaseProcess
    messages: Connection
    started: float
    stage: str = "start"
    record: dict[str, Any] | None = None


def load(results: Path) -> list[dict[str, Any]]:
    """All whole records, the latest of each network."""
    latest = {f"{record['library']}:{record['model']}": record for record in load_records(results)}
    return list(latest.values())


def run(keys: Iterable[str], results: Path, jobs: int, seconds: float, gib: float, what: Examination = examine) -> None:
    """Do ``what`` with every network of ``keys`` and append a record of each to ``results``.

    ``seconds``: of processor time, so that other work on the machine does not count; ten times that on the clock.
    """
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    context = get_context("forkserver")
    todo = list(keys)[::-1]
    libraries = dict.fromkeys(key.partition(":")[0] for key in todo)
    context.set_forkserver_preload([*PRELOAD, *(f"experiments.zoo.cases.{library}_cases" for library in libraries)])
    commit = _commit()
    active: list[Running] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task("zoo", total=len(todo))
        while todo or active:
            while todo and len(active) < jobs:
                active.append(_start(context, todo.pop(), seconds, what))
            bar.update(task, description=", ".join(f"{r.key} {r.stage}" for r in active)[:60])
            time.sleep(0.1)
            for running in list(active):
                record = _watch(running, seconds, gib)
                if record is None:
                    continue
                append_records(results, [record | {"commit": commit}])
                active.remove(running)
                bar.advance(task)
                if record["outcome"] == "miss":
                    bar.print(f"[red]{running.key}[/] {record['stage']}: {record.get('cause', '')[:200]}")


def _commit() -> str:
    """The library's version as git knows it, for the method changes faster than its number."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()


def _start(context: Any, key: str, seconds: float, what: Examination) -> Running:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(key, theirs, seconds, what), daemon=True)
    process.start()
    theirs.close()
    return Running(key, process, ours, time.monotonic())


def _child(key: str, messages: Connection, seconds: float, what: Examination) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    messages.send(what(find(key), messages.send))


def _watch(running: Running, seconds: float, gib: float) -> dict[str, Any] | None:
    """The record once there is one; a process beyond its limits is ended."""
    elapsed = time.monotonic() - running.started
    try:
        while running.messages.poll():
            message = running.messages.recv()
            if isinstance(message, dict):
                running.process.join()
                return message
            running.stage = message
    except EOFError:
        running.process.join()
        code = running.process.exitcode
        over = f"over {seconds:.0f} s of processor time"
        return _missed(
            running, over if code == -signal.SIGXCPU else f"the process ended with exit code {code}", elapsed
        )
    if elapsed > 10 * seconds:
        return _ended(running, f"over {10 * seconds:.0f} s", elapsed)
    if _resident(running.process.pid) > gib:
        return _ended(running, f"over {gib:g} GiB", elapsed)
    return None


def _ended(running: Running, cause: str, elapsed: float) -> dict[str, Any]:
    running.process.kill()
    running.process.join()
    return _missed(running, cause, elapsed)


def _missed(running: Running, cause: str, elapsed: float) -> dict[str, Any]:
    library, _, name = running.key.partition(":")
    known = {"library": library, "model": name, "task": find(running.key).task, "outcome": "miss"}
    return known | {"stage": running.stage, "cause": cause, "seconds": round(elapsed, 1)}


def _resident(pid: int | None) -> float:
    """Resident memory in GiB; 0 where /proc does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmRSS")), 0.0)
