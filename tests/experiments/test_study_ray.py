"""The grid on a real Ray cluster: nodes are processes of their own, and one is killed in the middle."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

import idealgroups as ig
from experiments.study.engines import LocalEngine
from experiments.study.execute import run_study
from experiments.study.ray_engine import RayEngine
from experiments.study.store import Result, Store, read_results
from study_cases import TINY

STUDY = dataclasses.replace(TINY, strategies=("fixed-32", "layer", "batch"), seeds=(0, 1), final_seeds=(), epochs=2)
"""Twelve trainings."""

PATIENCE = 900


def children(pid: int) -> dict[int, str]:
    """Every process below ``pid`` with its command line, read from /proc."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                parents[int(entry.name)] = (
                    parent,
                    entry.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(),
                )
            except OSError:
                continue  # it ended while we looked
    found: dict[int, str] = {}
    new = {pid}
    while new:
        below = {child: command for child, (parent, command) in parents.items() if parent in new}
        found |= below
        new = set(below)
    return found


def kill_node(node: subprocess.Popen[bytes]) -> None:
    """At once, as a power cut would: the node's process and all below it."""
    for pid in [node.pid, *children(node.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.wait()


def start_node(*options: str, log: Path) -> subprocess.Popen[bytes]:
    ray = Path(sys.executable).with_name("ray")
    command = [str(ray), "start", "--block", "--object-store-memory=100000000", *options]
    checks = {"period_ms": "500", "initial_delay_ms": "0", "timeout_ms": "1000", "failure_threshold": "3"}
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {f"RAY_health_check_{key}": value for key, value in checks.items()}
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)


def wait_for(log: Path, node: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while b"Ray runtime started" not in log.read_bytes():
        assert node.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)


@dataclasses.dataclass
class Cluster:
    """A head that does no work itself, and one node with one core at a time, so that it is known who works."""

    address: str
    folder: Path
    stack: ExitStack
    nodes: int = 1

    def add(self) -> subprocess.Popen[bytes]:
        self.nodes += 1
        log = self.folder / f"node{self.nodes}"
        here = f"--node-ip-address=127.0.0.{self.nodes}"
        node = start_node(f"--address={self.address}", here, "--num-cpus=1", log=log)
        self.stack.callback(kill_node, node)
        wait_for(log, node)
        return node


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    pytest.importorskip("ray")
    if sys.platform != "linux":
        pytest.skip("several nodes on one machine need 127.0.0.2, which Linux alone has by default")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    temporary = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # Ray's socket paths may have 107 characters at most
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        head_options = (
            f"--port={address.rpartition(':')[2]}",
            "--node-ip-address=127.0.0.1",
            "--num-cpus=0",
            f"--temp-dir={temporary}",
        )
        head = start_node("--head", "--include-dashboard=false", *head_options, log=tmp_path / "head")
        stack.callback(kill_node, head)
        wait_for(tmp_path / "head", head)
        yield Cluster(address, tmp_path, stack)


def replace_while_working(node: subprocess.Popen[bytes], cluster: Cluster, folder: Path, seen: list[str]) -> None:
    """Kill the node once some runs are stored and it is in the middle of one; another takes its place."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        busy = [command for command in children(node.pid).values() if command.startswith("ray::_work")]
        if busy and folder.exists() and len(read_results([folder])) >= 3:
            seen.extend(busy)
            break
        time.sleep(0.02)
    kill_node(node)
    cluster.add()


def comparable(result: Result) -> dict[str, Any]:
    kept = {key: value for key, value in result.record.items() if key not in ("seconds", "finished")}
    kept["plan"] = {key: value for key, value in result.record["plan"].items() if "seconds" not in key}
    return kept


@pytest.mark.first
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_study_survives_the_death_of_a_node_with_the_results_of_local_processes(
    cluster: Cluster, tmp_path: Path
) -> None:
    node = cluster.add()
    killed: list[str] = []
    killer = threading.Thread(target=replace_while_working, args=(node, cluster, tmp_path / "ray", killed))
    killer.start()
    summary = run_study(STUDY, Store(tmp_path / "ray"), RayEngine(cluster.address))
    killer.join()
    assert killed, "the node was not seen at work"
    assert node.returncode == -signal.SIGKILL
    assert summary.trained == 12
    lines = [line for file in (tmp_path / "ray").glob("*.jsonl") for line in file.read_text().splitlines()]
    on_ray = {result.run.hash: result for result in read_results([tmp_path / "ray"])}
    assert len(lines) == len(on_ray) == 12

    run_study(STUDY, Store(tmp_path / "local"), LocalEngine(1))
    locally = {result.run.hash: result for result in read_results([tmp_path / "local"])}
    assert {key: comparable(r) for key, r in on_ray.items()} == {key: comparable(r) for key, r in locally.items()}


@pytest.mark.filterwarnings("ignore")
def test_an_address_where_nobody_answers_is_an_error() -> None:
    pytest.importorskip("ray")
    with (
        pytest.raises(ig.IdealGroupsError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 "),
        RayEngine("127.0.0.1:1"),
    ):
        pass


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ig.IdealGroupsError, match=r"install idealgroups\[ray\]"):
        RayEngine()
