"""Write report.md from the runs: ``python -m experiments.evidence``."""

from __future__ import annotations

from pathlib import Path

from experiments.study.store import read_results

from .report import report

HOME = Path(__file__).parent

if __name__ == "__main__":
    (HOME / "report.md").write_text(report(read_results([HOME / "runs"])), encoding="utf-8")
