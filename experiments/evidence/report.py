"""Results of the finished arms and the verdicts on the goals of statement.md, as Markdown."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev

from experiments.common.markdown import Table, minus, table
from experiments.study.analysis import Comparison, Regret, Row, analyse, compare, regrets
from experiments.study.config import SWEEP, Arm
from experiments.study.data import SERIES
from experiments.study.diffusion import SUFFIX as NOISE
from experiments.study.federated import FEDERATED
from experiments.study.private import is_private
from experiments.study.stats import bootstrap_interval
from experiments.study.store import Result
from experiments.study.tables import Arms

from .parts import PARTS, Progress, progress
from .rates import rates_tables
from .sizes import sizes_tables

OURS, ONE_NUMBER, HABIT = "isometric", "uniform", "fixed-32"
RANKED = (OURS, ONE_NUMBER, "block", HABIT, "gcd-32", "channels-4", "channels-16", "layer", "instance")
"""Every choice that needs no training."""

SHOWN = (*RANKED, SWEEP, "batch")
"""The sweep's members that are no rows of their own are left out: they have the tuning seed alone."""

KINDS = ("private", "federated", "batches of 1 and 2", "diffusion", "series", "long")
"""In the order of docs/evidence.md."""

MET, REFUTED, OPEN = "met", "**refuted**", "open"


def report(results: Sequence[Result], parts: Path = PARTS, *, goals: bool = True) -> str:
    """The whole report on the arms whose files are in ``parts``; without ``goals`` where they do not count for them."""
    state = progress(results, parts)
    complete = {one.arm for one in state if not one.missing}
    found = {arm: rows for arm, rows in analyse(results).items() if arm in complete}
    against = [compare(found, OURS, other) for other in (HABIT, ONE_NUMBER, SWEEP)]
    tables = [
        progress_table(state),
        *rates_tables(results, parts),
        *(arm_table(arm, rows) for arm, rows in found.items()),
        *precision_tables(found, results),
        regret_table(found),
        kind_table(found),
        *sizes_tables(found),
        *(comparison_table(pairs) for pairs in against if pairs),
        *([goals_table(found, *against)] if goals else []),
    ]
    machines = sorted({result.record["machine"]["device"] for result in results})
    head = (
        "# Where group norm is used for a reason: the runs in numbers\n\n"
        "Written by `python -m experiments.evidence`. What is asked and how it is judged: statement.md. "
        f"Trained on {', '.join(machines)}; each run's line says where.\n"
    )
    return "\n".join([head, *(table.markdown() for table in tables)])


@dataclass(frozen=True)
class Above:
    """By how many per cent each choice's test loss lies above the best one's in an arm of one kind."""

    title: str
    kind: str
    values: Mapping[str, float]


def above_best(results: Sequence[Result], parts: Path = PARTS) -> list[Above]:
    """Every finished arm, those of a kind together."""
    state = progress(results, parts)
    rows = analyse(results)
    arms: dict[str, list[Arm]] = defaultdict(list)
    for one in state:
        arms[one.part].append(one.arm)
    finished = [one for one in state if not one.missing]
    every = [Above(_title(one, arms[one.part]), kind(one.arm), _above(rows[one.arm])) for one in finished]
    return sorted(every, key=lambda one: KINDS.index(one.kind))


def kind(arm: Arm) -> str:
    """Why there is no batch norm in an arm, or what it is about: one of ``KINDS``."""
    if is_private(arm.optimizer):
        return "private"
    if arm.optimizer == FEDERATED:
        return "federated"
    if arm.batch_size <= 2:
        return "batches of 1 and 2"
    if arm.images.name.endswith(NOISE):
        return "diffusion"
    return "series" if arm.images.name.endswith(SERIES) else "long"


def summary(arms: Sequence[Above]) -> str:
    """What :func:`above_best` returns as one table for people, an arm a row and the least mean on the left."""
    names = [name for name in RANKED if all(name in one.values for one in arms)]
    columns = {name: [one.values[name] for one in arms] for name in names}
    names.sort(key=lambda name: fmean(columns[name]))
    shown = (*names, *(name for name in SHOWN if name not in RANKED))
    body = [
        (one.title, *(minus(f"{one.values[name]:+.1f}") if name in one.values else "–" for name in shown))
        for one in arms
    ]
    body += [
        (what, *(f"{of(columns[name]):.1f}" if name in columns else "–" for name in shown))
        for what, of in (("*mean*", fmean), ("*median*", median))
    ]
    return table(("arm", *shown), body)


def _title(one: Progress, arms: Sequence[Arm]) -> str:
    """The name of the part, and what tells its arms apart where there are several."""
    if len(arms) == 1:
        return one.part
    if len({arm.network for arm in arms}) > 1:
        return f"{one.part}: {one.arm.network.removeprefix('monai-')}"
    return f"{one.part}: {one.arm.images.name.removesuffix(SERIES).removeprefix(f'{one.part}_')}"


def _above(rows: Mapping[str, Row]) -> dict[str, float]:
    """By how many per cent each choice's test loss lies above the best one's, over the seeds that all have."""
    shown = {name: rows[name].test_loss for name in SHOWN if name in rows}
    seeds = set.intersection(*map(set, shown.values()))
    losses = {name: fmean(by_seed[seed] for seed in seeds) for name, by_seed in shown.items() if seeds}
    least = min((losses[name] for name in RANKED if name in losses), default=math.nan)
    return {name: 100 * (loss / least - 1) for name, loss in losses.items()}


def progress_table(state: Sequence[Progress]) -> Table:
    """What has run."""
    rows = [
        (one.part, str(one.arm), "finished" if not one.missing else f"{one.runs - one.missing} of {one.runs} or more")
        for one in state
    ]
    return Table("Arms", ("part", "arm", "runs"), tuple(rows), "Only finished arms are in the tables below.")


def arm_table(arm: Arm, rows: Mapping[str, Row]) -> Table:
    """Every choice at its best rate."""
    above = _above(rows)
    body = []
    for name in SHOWN:
        if name in rows:
            row = rows[name]
            error = fmean(row.test_error.values())
            body.append(
                (
                    f"{name} {row.note}".strip(),
                    row.widths,
                    f"{row.learning_rate:g}{' (edge)' if row.on_edge else ''}",
                    f"{_loss(row):.4f}",
                    minus(f"{above[name]:+.1f}") if name in above else "–",
                    "–" if math.isnan(error) else f"{100 * (1 - error):.1f}",
                    str(len(row.test_loss)),
                )
            )
    header = ("choice", "channels a group: least / median / most", "rate", "test loss", "above best, %",
              "accuracy, %", "seeds")  # fmt: skip
    note = (
        "Means over the seeds; above best: over the seeds that all have. Best: the least test loss of a choice without "
        "training; sweep and batch norm are none."
    )
    return Table(str(arm), header, tuple(body), note)


def precision_tables(found: Arms, results: Sequence[Result]) -> list[Table]:
    """For each arm that finds boxes: the average precision of every choice at its best rate, with its spread."""
    tables = []
    for arm, rows in found.items():
        body = []
        for name in (name for name in SHOWN if name in rows):
            at_best = [
                result
                for result in results
                if result.run.arm == arm
                and result.run.strategy == name
                and result.run.learning_rate == rows[name].learning_rate
                and result.record.get("test_ap50") is not None
            ]
            if at_best:
                main = _mean_and_spread([result.test_accuracy for result in at_best])
                half = _mean_and_spread([result.record["test_ap50"] for result in at_best])
                body.append((name, main, half, str(len(at_best))))
        if body:
            note = "Mean and standard deviation over the seeds."
            header = ("choice", "AP at an IoU of 0.4, %", "AP at 0.5, %", "seeds")
            tables.append(Table(f"Average precision: {arm}", header, tuple(body), note))
    return tables


def _mean_and_spread(shares: Sequence[float]) -> str:
    spread = f" ± {100 * stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{100 * fmean(shares):.1f}{spread}"


def regret_table(found: Arms) -> Table:
    """Each choice over all finished arms."""
    plain = regrets(found, RANKED)
    above = [_above(rows) for rows in found.values()]
    body = [
        (
            name,
            f"{100 * one.mean:.2f}",
            f"{median(each[name] for each in above):.2f}",
            f"{100 * one.worst:.2f}",
            str(one.worst_arm),
        )
        for name, one in sorted(plain.items(), key=lambda item: item[1].mean)
    ]
    note = f"Over {len(found)} arms, over the seeds that all choices have."
    if above:
        spread = [max(value for name, value in each.items() if name in RANKED and name != "instance") for each in above]
        note += (
            " How far the worst choice lies above the best, leaving out instance norm: "
            f"{min(spread):.1f} to {max(spread):.1f}%. {_without_one(above)}{_one_number_or_many(above)}"
            f"{_at_the_edge(found)}"
        )
    return Table("Regret, %", ("choice", "mean", "median", "worst", "where"), tuple(body), note)


def _one_number_or_many(above: Sequence[Mapping[str, float]]) -> str:
    """How far the plan lies from one number for all layers, over arms."""
    apart = [each[OURS] - each[ONE_NUMBER] for each in above if OURS in each and ONE_NUMBER in each]
    if not apart:
        return ""
    found = bootstrap_interval(apart)
    mean, low, high = (minus(f"{value:+.1f}") for value in (found.mean, found.low, found.high))
    return (
        f" {OURS} less {ONE_NUMBER}: {mean} points in the mean, {low} to {high} by 95% of bootstrap samples of arms; "
        f"ahead in {sum(value < 0 for value in apart)} arms, behind in {sum(value > 0 for value in apart)}."
    )


def _without_one(above: Sequence[Mapping[str, float]]) -> str:
    """Whether the choice of least mean regret depends on a single arm."""
    names = [name for name in RANKED if all(name in each for each in above)]
    winners = [
        min(names, key=lambda name: math.fsum(each[name] for j, each in enumerate(above) if j != i))
        for i in range(len(above))
    ]
    counts = ", ".join(f"{name} {winners.count(name)} times" for name in names if name in winners)
    return f"With one arm left out, each in turn, the least mean has {counts}."


def _at_the_edge(found: Arms) -> str:
    """In how many arms a better rate may lie beyond those tried."""
    edges = [[rows[name].on_edge for name in RANKED if name in rows] for rows in found.values()]
    most = sum(sum(edge) > len(edge) / 2 for edge in edges)
    return f" In {most} of {len(edges)} arms most choices have their best rate at the edge of those tried."


def kind_table(found: Arms) -> Table:
    """Mean regret by kind of arm."""
    above = {arm: _above(rows) for arm, rows in found.items()}
    body = []
    for one in KINDS:
        own = [values for arm, values in above.items() if kind(arm) == one]
        if own:
            means = (
                minus(f"{fmean(each[name] for each in own):.1f}") if all(name in each for each in own) else "–"
                for name in (*RANKED, "batch")
            )
            body.append((one, str(len(own)), *means))
    header = ("kind", "arms", *RANKED, "batch")
    note = "Batch norm: beside the best choice; never ranked."
    return Table("Mean regret by kind of arm, %", header, tuple(body), note)


def comparison_table(pairs: Sequence[Comparison]) -> Table:
    """One pair of choices, arm by arm."""
    body = [
        (
            str(one.arm),
            minus(f"{one.difference.mean:+.4f}"),
            minus(f"{one.difference.low:+.4f} … {one.difference.high:+.4f}"),
            str(one.seeds),
            f"{one.p:.3g}",
            f"{one.adjusted_p:.3g}",
            one.verdict,
        )
        for one in pairs
    ]
    header = ("arm", "difference of test loss", "95%", "seeds", "p", "p, corrected", "verdict")
    return Table(f"{pairs[0].strategy} against {pairs[0].reference}", header, tuple(body))


def goals_table(
    found: Arms, habit: Sequence[Comparison], one_number: Sequence[Comparison], sweep: Sequence[Comparison]
) -> Table:
    """The goals of statement.md."""
    private = [one for one in habit if is_private(one.arm.optimizer)]
    better = sum(one.verdict == "better" for one in private)
    behind = [one for one in sweep if is_private(one.arm.optimizer) and one.difference.mean > one.standard_error]
    worse = [one for one in habit if one.verdict == "worse"]
    plain = regrets(found, RANKED)
    rows = [
        (
            "private: significantly better than 32 groups in most arms",
            f"in {better} of {len(private)}",
            _verdict(better > len(private) / 2, bool(private)),
        ),
        (
            "private: within noise of the best uniform number in all arms",
            _named(behind, "behind by more than one standard error in") or f"in all {len(private)}",
            _verdict(not behind, bool(private)),
        ),
        _least("least mean regret of all choices without training", {name: one.mean for name, one in plain.items()}),
        _least("least worst-case regret", {name: one.worst for name, one in plain.items()}),
        (
            "never significantly worse than 32 groups",
            _named(worse, "worse in") or f"in none of {len(habit)}",
            _verdict(not worse, bool(habit)),
        ),
        _layer_wise(plain, one_number),
    ]
    note = "Over the finished arms; an arm that is still missing can change a verdict."
    return Table("Goals", ("goal", "found", "verdict"), tuple(rows), note)


def _layer_wise(plain: Mapping[str, Regret], pairs: Sequence[Comparison]) -> tuple[str, str, str]:
    goal = "a number for each layer is worth it"
    if not {OURS, ONE_NUMBER} <= set(plain):
        return goal, "–", OPEN
    better, worse = (sum(one.verdict == verdict for one in pairs) for verdict in ("better", "worse"))
    text = (
        f"mean regret {100 * plain[OURS].mean:.2f}%, {ONE_NUMBER} {100 * plain[ONE_NUMBER].mean:.2f}%; significantly "
        f"better in {better} and worse in {worse} of {len(pairs)} arms"
    )
    return goal, text, _verdict(plain[OURS].mean < plain[ONE_NUMBER].mean, True)


def _least(goal: str, regret: Mapping[str, float]) -> tuple[str, str, str]:
    if OURS not in regret:
        return goal, "–", OPEN
    best = min(regret, key=lambda name: regret[name])
    return (
        goal,
        f"{OURS} {100 * regret[OURS]:.2f}%, least is {best} with {100 * regret[best]:.2f}%",
        _verdict(regret[OURS] <= regret[best], True),
    )


def _verdict(holds: bool, known: bool) -> str:
    return OPEN if not known else MET if holds else REFUTED


def _named(pairs: Sequence[Comparison], words: str) -> str:
    return f"{words} {'; '.join(str(one.arm) for one in pairs)}" if pairs else ""


def _loss(row: Row) -> float:
    return fmean(row.test_loss.values())
