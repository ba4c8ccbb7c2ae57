"""Records → report.md and the tables of docs/pretrained.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from experiments.common.markdown import replace_section, table

from .rates import TUNING_SEED, best_rate

Record = dict[str, Any]

SHOWN = {
    "naive: one": "γ, β kept, one group",
    "naive: 32": "γ, β kept, 32",
    "opacus": "Opacus",
    "calibrated: 32": "calibrated, 32",
    "calibrated: one": "calibrated, one group",
    "calibrated: faithful 0.004": "budget 0.004",
    "calibrated: faithful 0.001": "`faithful` (0.001)",
    "calibrated: faithful 0.001 + distilled": "and distilled",
}
"""The arms that docs/pretrained.md shows; report.md has all."""

SCORES = (
    "Test score: per cent right; of the U-Net the mean intersection over union, of CREPE the share of notes within "
    "half a semitone of batch norm's."
)


def write_report(records: Sequence[Record], path: Path) -> None:
    """One table a part."""
    sections = [
        "# What pretrained networks keep",
        "Written by `python -m experiments.pretrained report` from records.jsonl; explained in docs/pretrained.md.",
        *_kept(_of(records, "kept"), "Kept without training on labels"),
        *_kept(_of(records, "real"), "Real pretrained weights"),
        *_by("budget", "Budget of `faithful`", _of(records, "budgets")),
        *_by("samples", "Samples to calibrate on (`faithful`, 0.001)", _of(records, "samples")),
        *_by("arm", "Other ways to fit γ and β", _of(records, "fits")),
        *_stepwise(_of(records, "tune")),
        *_private(_of(records, "private")),
        *_federated(_of(records, "federated")),
        *_large(_of(records, "large")),
    ]
    path.write_text("\n\n".join(sections) + "\n")


def write_summary(records: Sequence[Record], document: Path) -> None:
    """The tables of docs/pretrained.md."""
    replace_section(document, "kept", _summary(records))
    for name, make in {"tuned": _stepwise, "private": _private, "federated": _federated}.items():
        part = {"tuned": "tune"}.get(name, name)
        found = list(make(_of(records, part)))
        if found:
            replace_section(document, name, "\n\n".join(text for text in found if not text.startswith("## ")))


def _summary(records: Sequence[Record]) -> str:
    """Per cent of the batch-norm network's score, each seed by itself, mean over seeds."""
    rows = []
    here = [*_of(records, "kept"), *_of(records, "real")]
    for name in _unique(here, "network"):
        scores = _scores([r for r in here if r["network"] == name], "arm")
        base = scores["batch norm"]
        cells = [f"{mean(shares):.0f}" if (shares := _shares(scores.get(arm, {}), base)) else "–" for arm in SHOWN]
        rows.append([name, str(len(base)), f"{mean(base.values()):.1f}", *cells])
    return table(["network", "seeds", "batch norm's score", *SHOWN.values()], rows)


def _kept(records: Sequence[Record], title: str) -> Iterable[str]:
    if not records:
        return
    yield f"## {title}"
    yield f"{SCORES} Mean over seeds ± standard deviation; in brackets per cent of batch norm's, seed by seed."
    networks = _unique(records, "network")
    scores = {n: _scores([r for r in records if r["network"] == n], "arm") for n in networks}
    rows = [
        [arm, *(_cell(scores[n].get(arm, {}), scores[n]["batch norm"]) for n in networks)]
        for arm in _unique(records, "arm")
    ]
    yield table(["arm", *(f"{n} ({len(scores[n]['batch norm'])})" for n in networks)], rows)
    yield "The number behind a network's name is the number of seeds."


def _by(field: str, title: str, records: Sequence[Record]) -> Iterable[str]:
    """One row a value of ``field``, one column a network."""
    if not records:
        return
    yield f"## {title}"
    yield SCORES
    networks, values = _unique(records, "network"), _unique(records, field)
    scores = {n: _scores([r for r in records if r["network"] == n], field) for n in networks}
    rows = [
        [f"{v:g}" if isinstance(v, float | int) else v, *(_mean(scores[n].get(v, {})) for n in networks)]
        for v in values
    ]
    yield table([field, *networks], rows)


def _stepwise(records: Sequence[Record]) -> Iterable[str]:
    """A table a batch size."""
    if not records:
        return
    yield "## Fine-tuned on labels"
    for size in sorted(_unique(records, "batch"), reverse=True):
        here = [r for r in records if r["batch"] == size]
        yield (
            f"Batches of {size}: score on 2,000 test samples after 0 / 50 / 150 / 500 steps, mean over seeds ± "
            f"standard deviation of the last; in brackets the rate, the best of those tried on seed {TUNING_SEED}. "
            f"{_seeds(here)}"
        )
        yield _progress(here)


def _federated(records: Sequence[Record]) -> Iterable[str]:
    if not records:
        return
    yield "## Federated fine-tuning"
    yield (
        "Score on glyphs of font families that no client has, after 0 / 1 / 3 / 6 rounds, mean over seeds ± "
        f"standard deviation of the last; in brackets the rate, the best of those tried on seed {TUNING_SEED}. "
        f"{_seeds(records)}"
    )
    yield _progress(records)


def _progress(records: Sequence[Record]) -> str:
    """One row an arm, one column a network: the scores on the way."""
    networks = _unique(records, "network")
    rows = []
    for arm in _unique(records, "arm"):
        here = [r for r in records if r["arm"] == arm]
        rows.append([arm, *(_at_best_rate([r for r in here if r["network"] == name]) for name in networks)])
    return table(["arm", *networks], rows)


def _at_best_rate(records: Sequence[Record]) -> str:
    """The mean scores at the rate that is best in the end on the tuning seed."""
    rate = best_rate(records)
    runs = [list(r["scores"].values()) for r in records if r["rate"] == rate]
    if not runs:
        return "–"
    last = f" ± {stdev(run[-1] for run in runs):.1f}" if len(runs) > 1 else ""
    return f"{' / '.join(f'{mean(values):.1f}' for values in zip(*runs, strict=True))}{last} ({rate:g})"


def _private(records: Sequence[Record]) -> Iterable[str]:
    if not records:
        return
    yield "## Private fine-tuning"
    yield (
        "Opacus, one epoch of 10,000 labelled samples in batches of 256, gradients clipped to 1, δ = 1e-5, one rate; "
        f"score on 2,000 test samples, mean over {len(_unique(records, 'seed'))} seed(s)."
    )
    epsilons = sorted(_unique(records, "epsilon"), reverse=True)
    rows = []
    for name in _unique(records, "network"):
        for arm in _unique(records, "arm"):
            here = [r for r in records if (r["network"], r["arm"]) == (name, arm)]
            if here:
                after = [{r["seed"]: r["score"] for r in here if r["epsilon"] == e} for e in epsilons]
                rows.append([arm, name, f"{mean(r['before'] for r in here):.1f}", *map(_mean, after)])
    yield table(["arm", "network", "before", *(f"ε = {e:g}" for e in epsilons)], rows)


def _large(records: Sequence[Record]) -> Iterable[str]:
    if not records:
        return
    yield "## ResNet-50, 256 images of 224 px"
    yield "Two threads on two cores; processor seconds are what it took of both, load is the number of busy processes."
    rows = [[r["arm"], r["wall_seconds"], r["processor_seconds"], r["load"], r["mebibytes"]] for r in records]
    yield table(["what", "seconds", "processor seconds", "load", "peak MiB"], rows)


def _of(records: Iterable[Record], part: str) -> list[Record]:
    return [r for r in records if r["part"] == part]


def _scores(records: Iterable[Record], field: str) -> dict[Any, dict[int, float]]:
    """{value of ``field``: {seed: score}}."""
    found: dict[Any, dict[int, float]] = {}
    for record in records:
        found.setdefault(record[field], {})[record["seed"]] = record["score"]
    return found


def _shares(scores: Mapping[int, float], base: Mapping[int, float]) -> list[float]:
    """Per cent of ``base``, seed by seed."""
    return [100 * value / base[seed] for seed, value in scores.items()]


def _cell(scores: Mapping[int, float], base: Mapping[int, float]) -> str:
    if not scores:
        return "–"
    spread = f" ± {stdev(scores.values()):.1f}" if len(scores) > 1 else ""
    return f"{mean(scores.values()):.1f}{spread} ({mean(_shares(scores, base)):.1f})"


def _mean(scores: Mapping[int, float]) -> str:
    return f"{mean(scores.values()):.1f}" if scores else "–"


def _seeds(records: Sequence[Record]) -> str:
    """How many seeds each network has, of the arm with the fewest."""
    counts = []
    for name in _unique(records, "network"):
        here = [r for r in records if r["network"] == name]
        fewest = min(len({r["seed"] for r in here if r["arm"] == arm}) for arm in _unique(here, "arm"))
        most = len(_unique(here, "seed"))
        counts.append(f"{name} {fewest}" + (f" to {most}" if most > fewest else ""))
    return f"Seeds: {', '.join(counts)}."


def _unique(records: Iterable[Record], field: str) -> list[Any]:
    return list(dict.fromkeys(record[field] for record in records))
