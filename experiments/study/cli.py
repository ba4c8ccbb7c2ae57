"""``python -m experiments.study run``, ``recipe`` and ``report``: load, call, print."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter
from cyclopts.config import Toml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from idealgroups.errors import IdealGroupsError

from .config import Study
from .recipes.training import Recipe


def _from_study_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill what the command line leaves open from the TOML file it names first."""
    named = [
        argument for argument in arguments if argument.name == "STUDY-FILE" or "study_file" in argument.field_info.names
    ]
    for argument in named:
        for token in argument.tokens:
            path = Path(token.value)
            if not path.is_file():
                raise CycloptsError(msg=f"There is no study file {path}.")
            Toml(path, use_commands_as_keys=False)(app, commands, arguments)


RUNS = Path(__file__).parent / "runs"

study_app = App(
    name="study", help="Train grids of networks to compare ways of choosing the groups.", config=_from_study_file
)


@study_app.command
def run(
    study_file: Annotated[Path | None, Parameter(help="TOML with any of the options below.")] = None,
    /,
    *,
    study: Annotated[Study, Parameter(name="*")] = Study(),  # noqa: B008 frozen
    out: Annotated[Path | None, Parameter(help="Folder of the results. Default: experiments/study/runs/NAME.")] = None,
    engine: Annotated[
        Literal["local", "ray"], Parameter(help="Processes of this machine, or a Ray cluster.")
    ] = "local",
    jobs: Annotated[int | None, Parameter(help="Local processes. Default: one a core.")] = None,
    address: Annotated[str | None, Parameter(help="Of the Ray cluster. Default: start one here.")] = None,
    gpus_per_run: Annotated[float, Parameter(help="GPUs a Ray task takes; a fraction shares one.")] = 0,
) -> None:
    """Run a study, or what is missing of it, and print its tables.

    Without a file: a small one on the digits that ship with scikit-learn, two minutes on two cores.
    """
    from .engines import LocalEngine
    from .execute import run_study
    from .ray_engine import RayEngine
    from .store import Store

    folder = out or RUNS / study.name
    where = (
        LocalEngine(jobs, study.data.folder)
        if engine == "local"
        else RayEngine(address, study.data.folder, gpus=gpus_per_run)
    )
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )

    def progress(what: str, total: int) -> Callable[[], None]:
        task = bar.add_task(what, total=total, visible=total > 0)
        return lambda: bar.advance(task)

    try:
        with bar:
            summary = run_study(study, Store(folder), where, progress)
    except KeyboardInterrupt:
        console.print(f"Stopped. Finished runs are in {folder}; the same command goes on from there.")
        raise SystemExit(130) from None
    console.print(
        f"{summary.trained} runs trained, {summary.shared} shared with one of the same groups; results in {folder}."
    )
    report([folder])
    if summary.failures:
        raise IdealGroupsError("; ".join(summary.failures))


@study_app.command
def recipe(
    *,
    recipe: Annotated[Recipe, Parameter(name="*")] = Recipe(),  # noqa: B008 frozen
    out: Annotated[Path, Parameter(help="Folder of the result.")] = RUNS / "recipes",
) -> None:
    """Train one of the paper's networks on large data: Caltech-101, Oxford-IIIT Pets or COCO."""
    from .recipes.run import run_recipe

    record = run_recipe(recipe)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{recipe.dataset}-{recipe.strategy}-{recipe.seed}.recipe.json"
    file.write_text(json.dumps(record, indent=1) + "\n")
    Console().print(", ".join(f"{name} {value:.2f}" for name, value in record["result"].items()), f"in {file}")


@study_app.command
def report(
    results: Annotated[list[Path], Parameter(help="JSONL files or folders of them.")],
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="Folder for report.md and the plots. Default: beside the results.")
    ] = None,
) -> None:
    """Print the tables of a study, and write them with the plots."""
    from .paper import read_recipes
    from .report import known_arms, write_report
    from .store import read_results
    from .tables import rich_table, summary_tables

    found = read_results(results)
    recipes = read_recipes(results)
    console = Console(width=None if Console().is_terminal else 200)
    for table in summary_tables(known_arms(found)):
        console.print(rich_table(table))
    beside = results[0] if results[0].is_dir() else results[0].parent
    for path in write_report(found, out or beside, recipes):
        console.print(f"wrote {path}")
