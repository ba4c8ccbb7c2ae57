"""Write report.md, and the table of docs/evidence.md, from the runs: ``python -m experiments.evidence``."""

from __future__ import annotations

from pathlib import Path

from experiments.common.markdown import replace_section
from experiments.study.store import read_results

from .report import report, summary

HOME = Path(__file__).parent

if __name__ == "__main__":
    found = read_results([HOME / "runs"])
    (HOME / "report.md").write_text(report(found), encoding="utf-8")
    replace_section(HOME.parents[1] / "docs" / "evidence.md", "reasons", summary(found))
