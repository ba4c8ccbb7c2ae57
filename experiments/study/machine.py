"""Where and with what a run was computed."""

from __future__ import annotations

import platform
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch


def pick_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@lru_cache(maxsize=1)
def describe_machine() -> dict[str, str]:
    """Device, platform and versions, as stored with every run."""
    device = torch.cuda.get_device_name() if pick_device().type == "cuda" else _processor()
    return {
        "device": device,
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "idealgroups": version("idealgroups"),
    }


def _processor() -> str:
    """The processor's name; Linux tells it in a file only."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
