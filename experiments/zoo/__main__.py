"""The command line of the zoo."""

from __future__ import annotations

import sys
from pathlib import Path

from cyclopts import App

from . import __doc__ as usage
from .cases import LIBRARIES, cases
from .runner import load, run

app = App(name="python -m experiments.zoo", help=usage)
HERE = Path(__file__).resolve().parent
RESULTS = HERE / "zoo.jsonl"
DOCUMENT = HERE / "report.md"


@app.command(name="run")
def run_zoo(
    *,
    only: str = "*",
    jobs: int = 1,
    seconds: float = 400,
    gib: float = 12,
    again: bool = False,
    results: Path = RESULTS,
) -> None:
    """Examine what is not in the results yet.

    Args:
        only: names to take, as in "timm:resnet*".
        jobs: networks at a time, one thread each.
        seconds: limit per network, in processor time.
        gib: memory limit per network.
        again: also those that are in the results as a miss.
        results: where the lines go.
    """
    done = {f"{r['library']}:{r['model']}" for r in load(results) if not (again and r["outcome"] == "miss")}
    run([key for key in keys(only) if key not in done], results, jobs, seconds, gib)


@app.command
def names(*, only: str = "*") -> None:
    """Print the networks, one a line."""
    print(*keys(only), sep="\n")


@app.command
def render(*, results: Path = RESULTS, document: Path = DOCUMENT) -> None:
    """Write the report from the results."""
    from .report import write

    write(load(results), document)


@app.command
def choose_timm() -> None:
    """Choose the networks of every timm family anew (minutes)."""
    from .cases.timm_cases import choose

    choose()


def keys(only: str) -> list[str]:
    found = []
    for library in LIBRARIES:
        try:
            found += [case.key for case in cases((library,), only)]
        except ImportError as error:
            print(f"skipping {library}: {error}", file=sys.stderr)
    return found


if __name__ == "__main__":
    app()
