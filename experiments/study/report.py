"""Results → report.md and its plots, beside the results."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idealgroups.errors import IdealGroupsError

from ..common.markdown import Table
from .analysis import Row, analyse
from .config import Arm
from .figures import network_figure, overview_figure
from .paper import paper_table
from .store import Result
from .tables import all_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = 128


def known_arms(results: Sequence[Result]) -> dict[Arm, dict[str, Row]]:
    """The rows of every arm.

    Raises:
        IdealGroupsError: there is nothing to report.
    """
    arms = analyse(results)
    if not arms:
        raise IdealGroupsError("there are no finished runs to report; run `python -m experiments.study run` first.")
    return arms


def write_report(results: Sequence[Result], folder: Path, recipes: Sequence[dict[str, Any]] = ()) -> list[Path]:
    """Write ``report.md`` and the plots into ``folder``; returns what was written."""
    arms = known_arms(results)
    figures = {"overview": overview_figure(arms)}
    figures |= {network: network_figure(network, arms) for network in dict.fromkeys(arm.network for arm in arms)}
    plots = [Path("plots") / f"{name.replace('/', '-')}.png" for name in figures]
    target = folder / "report.md"
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        for plot, figure in zip(plots, figures.values(), strict=True):
            save_small(figure, folder / plot)
        target.write_text(_markdown([*all_tables(arms), paper_table(arms, recipes)], results, plots), encoding="utf-8")
    except OSError as error:
        raise IdealGroupsError(f"cannot write the report: {error}.") from None
    return [*(folder / plot for plot in plots), target]


def save_small(figure: Figure, file: Path) -> None:
    """A PNG of 128 colors, a third of the size: reports are committed."""
    from PIL import Image

    drawn = BytesIO()
    figure.savefig(drawn, dpi=110)
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            file, optimize=True
        )


def _markdown(tables: Sequence[Table], results: Sequence[Result], plots: Sequence[Path]) -> str:
    trained = {result.record["trained_as"]: result for result in results}
    hours = sum(result.record["seconds"] for result in trained.values()) / 3600
    machines = sorted({f"{m['device']}, torch {m['torch']}" for m in (r.record["machine"] for r in trained.values())})
    diverged = sum(result.record["diverged"] for result in results)
    head = (
        "# The runs in numbers\n\n"
        "Written by `python -m experiments.study report`. What is asked and how it is judged: docs/protocol.md;\n"
        "what came out: docs/first-study.md.\n\n"
        f"{len(results)} runs ({len(trained)} trainings, {hours:.2f} hours of one core or device; {diverged} diverged) "
        f"on {'; '.join(machines)}.\n"
    )
    images = "\n".join(f"![{plot.stem}]({plot.as_posix()})\n" for plot in plots)
    return "\n".join([head, images, *(table.markdown() for table in tables)])
