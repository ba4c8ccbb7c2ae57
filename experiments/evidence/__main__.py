"""Write the reports, and table and figure of docs/evidence.md, from the runs: ``python -m experiments.evidence``."""

from __future__ import annotations

from pathlib import Path

from experiments.common.markdown import replace_section
from experiments.study.report import save_small
from experiments.study.store import read_results

from .figure import above_figure
from .report import above_best, report, summary

HOME = Path(__file__).parent
DOCS = HOME.parents[1] / "docs"

if __name__ == "__main__":
    found = read_results([HOME / "runs"])
    (HOME / "report.md").write_text(report(found), encoding="utf-8")
    wider = read_results([HOME / "runs", HOME / "wider-runs"])
    (HOME / "report-wider.md").write_text(report(wider, HOME / "wider", goals=False), encoding="utf-8")
    long = read_results([HOME / "long-runs"])
    (HOME / "report-long.md").write_text(report(long, HOME / "long", goals=False), encoding="utf-8")
    arms = above_best(found)
    replace_section(DOCS / "evidence.md", "reasons", summary(arms))
    save_small(above_figure(arms), DOCS / "evidence-reasons.png")
