"""The tables of a report: plain rows of text, printed by rich or written as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from rich import box
from rich.table import Table as RichTable

from idealgroups.theory.formulas import MIN_FLAT_ELEMENTS, MIN_IDEAL_ELEMENTS

from ..common.first_rule import ISOMETRY_TOLERANCE, POSITION_TOLERANCE, TREND_ERRORS
from ..common.markdown import Table, minus
from .analysis import CANDIDATES, RANKED, REFERENCE, Comparison, Row, compare, mean_decades, ranks, regrets
from .config import STRATEGIES, SWEEP, Arm
from .stats import Interval, bootstrap_interval
from .variants import base

Arms = Mapping[Arm, Mapping[str, Row]]


def rich_table(table: Table) -> RichTable:
    """``table`` for the terminal."""
    shown = RichTable(
        title=table.title, title_justify="left", caption=table.note or None, caption_justify="left", box=box.SIMPLE
    )
    for index, name in enumerate(table.header):
        shown.add_column(name, justify="left" if index == 0 else "right")
    for row in table.rows:
        shown.add_row(*(cell.replace("**", "") for cell in row))
    return shown


def summary_tables(arms: Arms) -> list[Table]:
    """Goals, overview and a table for each arm: what the terminal shows."""
    return [
        table for table in (goals(arms), overview(arms), by_network(arms), *map(arm_table, arms.values())) if table.rows
    ]


def all_tables(arms: Arms) -> list[Table]:
    """Every table of the report."""
    return summary_tables(arms) + [table for table in (ablations(arms), *against(arms)) if table.rows]


def arm_table(rows: Mapping[str, Row]) -> Table:
    """One arm: every strategy at its best learning rate, and the curve over rates."""
    arm = next(iter(rows.values())).arm
    rates = sorted({rate for row in rows.values() for rate in row.curve})
    least = min(_mean(row.test_loss) for row in rows.values())
    devices = {row.device for row in rows.values()}
    body = []
    for row in rows.values():
        loss = bootstrap_interval(list(row.test_loss.values()))
        body.append(
            (
                f"{row.strategy} {row.note}".strip(),
                row.widths,
                f"{row.learning_rate:g}{' (edge)' if row.on_edge else ''}",
                *(_number(row.curve.get(rate, math.nan)) for rate in rates),
                f"{row.decades:.2f}",
                f"{row.common_decades:.2f}",
                _bold(_number(loss.mean), math.isclose(loss.mean, least)),
                _span(loss),
                _percent(_mean(row.test_error)),
                str(len(row.test_loss)),
            )
        )
    header = (
        "strategy",
        "c: least / median / most",
        "best lr",
        *(f"val. loss {rate:g}" for rate in rates),
        "decades",
        "decades, common",
        "test loss",
        "95%",
        "test error %",
        "seeds",
    )
    note = f"{arm.images.train or 'all'} training images, {arm.epochs} epochs, on {' and '.join(sorted(devices))}."
    return Table(str(arm), header, tuple(body), note)


def overview(arms: Arms) -> Table:
    """Strategies over all arms: ranks, differences to the reference, learning rates, costs."""
    rank, decades, common = ranks(arms), mean_decades(arms), mean_decades(arms, common=True)
    regret = regrets(arms)
    body = []
    for name in (n for n in STRATEGIES if any(n in rows for rows in arms.values())):
        ratios = [
            _mean(rows[name].test_loss, both) / _mean(rows[REFERENCE].test_loss, both) - 1
            for rows in arms.values()
            if name in rows and REFERENCE in rows
            for both in [sorted(set(rows[name].test_loss) & set(rows[REFERENCE].test_loss))]
            if both and math.isfinite(_mean(rows[REFERENCE].test_loss, both))
        ]
        steps = [rows[name].choice_steps for rows in arms.values() if name in rows]
        body.append(
            (
                name,
                f"{rank[name]:.2f}" if name in rank else "–",
                f"{100 * regret[name].mean:.1f}" if name in regret else "–",
                f"{100 * regret[name].worst:.1f}" if name in regret else "–",
                minus(f"{100 * fmean(ratios):+.1f}") if ratios else "–",
                f"{decades[name]:.2f}",
                f"{common[name]:.2f}",
                f"{fmean(steps):.0f}",
            )
        )
    note = (
        f"Over {len(arms)} arms. Mean rank: by test loss at the best learning rate, of the strategies that choose "
        "groups without training. Above the best: how far the test loss exceeds that of the arm's best of these, mean "
        f"over arms; at worst: in the worst arm. Loss: mean relative test loss against {REFERENCE}. Decades: width of "
        "the range of learning rates within 5% of the strategy's own best validation loss; common: of the arm's best "
        "group norm. Cost: training steps spent on choosing the groups, for one seed."
    )
    header = (
        "strategy",
        "mean rank",
        "above the best, %",
        "at worst, %",
        f"loss against {REFERENCE}, %",
        "decades",
        "decades, common",
        "cost, steps",
    )
    return Table("All arms", header, tuple(body), note)


def by_network(arms: Arms) -> Table:
    """Mean ranks over the arms of each network by itself: where a strategy is good, and where not."""
    networks = sorted({arm.network for arm in arms})
    of = {name: {arm: rows for arm, rows in arms.items() if arm.network == name} for name in networks}
    means = {name: ranks(own) for name, own in of.items()}
    names = [strategy for strategy in RANKED if any(strategy in mean for mean in means.values())]
    body = tuple(
        (
            strategy,
            *(
                _bold(f"{means[name][strategy]:.1f}", means[name][strategy] == min(means[name].values()))
                if strategy in means[name]
                else "–"
                for name in networks
            ),
        )
        for strategy in names
    )
    header = ("strategy", *(f"{name} ({len(of[name])})" for name in networks))
    return Table("Mean rank by network", header, body, "In brackets: the number of arms.")


def against(arms: Arms) -> list[Table]:
    """Each strategy from theory against the reference, the sweep and batch norm, arm by arm."""
    tables = []
    for strategy in CANDIDATES:
        for reference in (REFERENCE, SWEEP, "batch"):
            found = compare(arms, strategy, reference)
            body = [
                (
                    str(one.arm),
                    _signed(one.difference.mean),
                    f"{_signed(one.difference.low)} to {_signed(one.difference.high)}",
                    f"{one.p:.3g}",
                    f"{one.adjusted_p:.3g}",
                    one.verdict,
                    str(one.seeds),
                )
                for one in found
            ]
            header = ("arm", "difference in test loss", "95%", "p", "p, Holm", "verdict", "seeds")
            tables.append(Table(f"{strategy} against {reference}", header, tuple(body)))
    return tables


def ablations(arms: Arms) -> Table:
    """Each strategy with one thing changed (see ``variants.py``) against the strategy itself, arm by arm."""
    changed = sorted({name for rows in arms.values() for name in rows if base(name) != name})
    body = [
        (
            name,
            str(one.arm),
            arms[one.arm][name].widths,
            arms[one.arm][base(name)].widths,
            f"{arms[one.arm][name].decades - arms[one.arm][base(name)].decades:+.2f}",
            _signed(one.difference.mean),
            f"{_signed(one.difference.low)} to {_signed(one.difference.high)}",
            f"{one.p:.3g}",
            str(one.seeds),
        )
        for name in changed
        for one in compare(arms, name, base(name))
    ]
    header = (
        "strategy",
        "arm",
        "c: least / median / most",
        "c unchanged",
        "decades",
        "difference in test loss",
        "95%",
        "p",
        "seeds",
    )
    note = (
        f"Differences to the same strategy with nothing changed: planned on training images, δ = {ISOMETRY_TOLERANCE}, "
        f"or {TREND_ERRORS:g} standard errors of the trend if more ({POSITION_TOLERANCE:.1f} if the loss sees "
        f"positions), groups of {MIN_IDEAL_ELEMENTS} elements or more ({MIN_FLAT_ELEMENTS} in fully connected "
        "layers). A negative one is a lower test loss. Not corrected for their number."
    )
    return Table("Ablations", header, tuple(body), note)


def goals(arms: Arms) -> Table:
    """The goals that docs/protocol.md states, as measured, for each of the three strategies from theory."""
    present = [name for name in CANDIDATES if any(name in rows for rows in arms.values())]
    if not any(REFERENCE in rows for rows in arms.values()):
        return Table("Goals", (), ())
    columns = [_goals_of(arms, name) for name in present]
    body = tuple((goal, *(column[goal] for column in columns)) for goal in (columns[0] if columns else {}))
    return Table(
        "Goals",
        ("goal", *present),
        body,
        "Significant: p < 0.05, paired by seed, Holm-corrected over the arms of the same optimizer and batch size.",
    )


def _goals_of(arms: Arms, name: str) -> dict[str, str]:
    rank, decades = ranks(arms), mean_decades(arms)
    reference, sweep = compare(arms, name, REFERENCE), compare(arms, name, SWEEP)
    convolutional = [one for one in reference if not one.arm.network.startswith("mlp")]
    ranked_decades = [n for n in decades if n in RANKED]
    costs = [
        rows[name].choice_steps / rows[SWEEP].choice_steps
        for rows in arms.values()
        if name in rows and SWEEP in rows and rows[SWEEP].choice_steps > 0
    ]
    near = sum(_within_one_error(one) for one in sweep)
    mnist = [
        _mean(rows[name].test_error)
        for arm, rows in arms.items()
        if name in rows and arm.network.startswith("mlp") and arm.images.name == "mnist" and not arm.images.train
    ]
    places = list(rank)
    worse, better = _count(reference, "worse"), _count(convolutional, "better")
    half = f"significantly better than {REFERENCE} in half of the convolutional arms"
    return {
        "best mean rank of all strategies without training": f"{rank[name]:.2f}, {_place(places, name)}"
        if rank
        else "–",
        f"never significantly worse than {REFERENCE}": f"worse in {worse} of {len(reference)} arms",
        half: f"better in {better} of {len(convolutional)}",
        "widest range of learning rates": f"{decades[name]:.2f} decades, {_place(ranked_decades, name)}",
        "within one standard error of the sweep in most arms": f"{near} of {len(sweep)}" if sweep else "–",
        "under 2% of the sweep's cost": f"{100 * fmean(costs):.1f}%, at most {100 * max(costs):.1f}%" if costs else "–",
        "MLP on all of MNIST: error at most 1.67%": f"{100 * min(mnist):.2f}%" if mnist else "–",
    }


def _place(names: Sequence[str], name: str) -> str:
    return f"place {names.index(name) + 1} of {len(names)}"


def _within_one_error(one: Comparison) -> bool:
    return one.difference.mean <= 0 or one.difference.mean <= one.standard_error


def _count(comparisons: Sequence[Comparison], verdict: str) -> int:
    return sum(one.verdict == verdict for one in comparisons)


def _mean(by_seed: Mapping[int, float], seeds: Sequence[int] | None = None) -> float:
    return fmean(by_seed[seed] for seed in (by_seed if seeds is None else seeds))


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "diverged" if math.isinf(value) else f"{value:.4g}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f}"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else minus(f"{value:+.4f}")


def _span(interval: Interval) -> str:
    return "–" if math.isnan(interval.low) else f"{interval.low:.4g} to {interval.high:.4g}"


def _bold(text: str, on: bool) -> str:
    return f"**{text}**" if on else text
