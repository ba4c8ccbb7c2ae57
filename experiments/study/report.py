"""Results → tables and plots in a folder, and into a section of a document between two markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idealgroups.errors import IdealGroupsError

from .analysis import Row, analyse
from .config import Arm
from .figures import network_figure, overview_figure
from .paper import paper_table
from .store import Result
from .tables import Table, all_tables

BEGIN, END = "<!-- study: begin -->", "<!-- study: end -->"


def known_arms(results: Sequence[Result]) -> dict[Arm, dict[str, Row]]:
    """The rows of every arm.

    Raises:
        IdealGroupsError: there is nothing to report.
    """
    arms = analyse(results)
    if not arms:
        raise IdealGroupsError("there are no finished runs to report; run `idealgroups study run` first.")
    return arms


def write_report(
    results: Sequence[Result], folder: Path, document: Path | None = None, recipes: Sequence[dict[str, Any]] = ()
) -> list[Path]:
    """Write ``report.md`` and the plots to ``folder``; returns what was written.

    With a ``document`` (Markdown), its section between ``BEGIN`` and ``END`` is replaced by the report instead, and the
    plots are linked from there; a document without the markers gets the section at its end.
    """
    arms = known_arms(results)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figures = {"overview": overview_figure(arms)}
        figures |= {network: network_figure(network, arms) for network in dict.fromkeys(arm.network for arm in arms)}
        for name, figure in figures.items():
            written.append(folder / f"{name.replace('/', '-')}.png")
            figure.savefig(written[-1], dpi=110)
        target = document or folder / "report.md"
        text = _markdown(
            [*all_tables(arms), paper_table(arms, recipes)], results, [_relative(path, target) for path in written]
        )
        target.write_text(_placed(text, target) if document else text)
    except OSError as error:
        raise IdealGroupsError(f"cannot write the report: {error}.") from None
    return [*written, target]


def _markdown(tables: Sequence[Table], results: Sequence[Result], plots: Sequence[str]) -> str:
    trained = {result.record["trained_as"]: result for result in results}
    hours = sum(result.record["seconds"] for result in trained.values()) / 3600
    machines = sorted({f"{m['device']}, torch {m['torch']}" for m in (r.record["machine"] for r in trained.values())})
    diverged = sum(result.record["diverged"] for result in results)
    head = (
        f"{len(results)} runs ({len(trained)} trainings, {hours:.2f} hours of one core or device; "
        f"{diverged} diverged), on {'; '.join(machines)}. Made by `idealgroups study report`.\n"
    )
    images = "\n".join(f"![{Path(plot).stem}]({plot})\n" for plot in plots)
    return "\n".join([head, images, *(table.markdown() for table in tables)])


def _placed(text: str, document: Path) -> str:
    before = document.read_text() if document.exists() else ""
    section = f"{BEGIN}\n\n{text}\n{END}"
    if BEGIN in before and END in before:
        return before[: before.index(BEGIN)] + section + before[before.index(END) + len(END) :]
    return f"{before.rstrip()}\n\n## The study\n\n{section}\n".lstrip()


def _relative(path: Path, target: Path) -> str:
    try:
        return path.resolve().relative_to(target.resolve().parent).as_posix()
    except ValueError:
        return path.as_posix()
