"""The measurements: one line of JSON each, and each made once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.common.jsonl import append_records, load_records
from experiments.study.machine import describe_machine

from .rates import Record, wanted

RECORDS = Path(__file__).parent / "records.jsonl"

Key = tuple[Any, ...]


def records() -> list[Record]:
    """All measurements."""
    return load_records(RECORDS)


def key(record: Record) -> Key:
    """What tells a measurement from others."""
    names = ("part", "network", "seed", "arm", "batch", "budget", "samples", "epsilon", "rate")
    return tuple(record.get(name) for name in names)


def measure_once(record: Record, make: Callable[[], Record], done: set[Key]) -> None:
    """Append one record, unless it is in ``done`` or its rate is not the best of the tuning seed."""
    if key(record) in done or not wanted(record, records()):
        return
    done.add(key(record))  # some parts name an arm twice
    started = time.process_time()
    made = record | make()
    seconds = round(time.process_time() - started, 1)
    append_records(RECORDS, [made | {"seconds": seconds, "device": describe_machine()["device"]}])
