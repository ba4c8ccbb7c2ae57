"""Records → report.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from experiments.common.markdown import replace_section, table

Record = dict[str, Any]

SHOWN = {
    "naive: one": "γ, β kept, one group",
    "naive: 32": "γ, β kept, 32",
    "opacus": "Opacus",
    "calibrated: 32": "calibrated, 32",
    "calibrated: one": "calibrated, one group",
    "calibrated: faithful": "calibrated, `faithful`",
    "calibrated: faithful 0.004": "budget 0.004",
    "calibrated: faithful 0.004 + distilled": "0.004, distilled",
}
"""The arms that docs/pretrained.md shows; report.md has all."""


def write_report(records: Sequence[Record], path: Path) -> None:
    """One table a part."""
    parts = [
        "# What pretrained networks keep",
        "Written by `python -m experiments.pretrained render` from records.jsonl; explained in docs/pretrained.md.",
        *_kept([r for r in records if r["part"] == "kept"]),
        *_kept([r for r in records if r["part"] == "real"], "## Real pretrained weights"),
        *_by("budget", "Budget of `faithful`", [r for r in records if r["part"] == "budgets"]),
        *_by("samples", "Samples to calibrate on (`faithful`)", [r for r in records if r["part"] == "samples"]),
        *_private([r for r in records if r["part"] == "private"]),
        *_tuned([r for r in records if r["part"] == "tune"]),
    ]
    path.write_text("\n\n".join(parts) + "\n")


def write_summary(records: Sequence[Record], document: Path) -> None:
    """The table of docs/pretrained.md: per cent of the batch-norm network's score, mean over seeds."""
    here = [r for part in ("kept", "real") for r in records if r["part"] == part]
    scores = _collect(here, "arm")
    networks = _unique(here, "network")
    rows = [["network", "batch norm's score", *SHOWN.values()]]
    for name in networks:
        base = scores[name, "batch norm"]
        cells = [f"{100 * mean(scores[name, arm]) / mean(base):.0f}" if scores[name, arm] else "–" for arm in SHOWN]
        rows.append([name, _mean(base), *cells])
    replace_section(document, "kept", table(rows[0], rows[1:]))


def _kept(records: Sequence[Record], title: str = "## Kept without training on labels") -> Iterable[str]:
    if not records:
        return
    yield title
    yield (
        "Test score (per cent right; of the U-Net the mean intersection over union, of CREPE the share of notes within "
        "half a semitone of batch norm's), mean over seeds ± standard deviation. In brackets: per cent of batch norm's."
    )
    scores = _collect(records, "arm")
    networks, arms = _unique(records, "network"), _unique(records, "arm")
    seeds = {n: len({r["seed"] for r in records if r["network"] == n}) for n in networks}
    rows = [["arm", *(f"{n} ({seeds[n]})" for n in networks)]]
    for arm in arms:
        cells = [_cell(scores[n, arm], scores[n, "batch norm"]) for n in networks]
        rows.append([arm, *cells])
    yield table(rows[0], rows[1:])
    yield "The number behind a network's name is the number of seeds."


def _by(field: str, title: str, records: Sequence[Record]) -> Iterable[str]:
    if not records:
        return
    yield f"## {title}"
    scores = _collect(records, field)
    networks, values = _unique(records, "network"), sorted(_unique(records, field))
    yield table([field, *networks], ([f"{v:g}", *(_mean(scores[n, v]) for n in networks)] for v in values))


def _private(records: Sequence[Record]) -> Iterable[str]:
    if not records:
        return
    yield "## Private fine-tuning"
    yield (
        "Opacus, one epoch of 10,000 labelled samples in batches of 256, gradients clipped to 1, δ = 1e-5, one rate; "
        "score on 2,000 test samples before and after. Calibration saw samples of the pretraining only."
    )
    rows = [["arm", "network", "ε", "before", "after"]]
    rows += [
        [r["arm"], r["network"], f"{r['epsilon']:g}", f"{r['before']:.1f}", f"{r['score']:.1f}"]
        for r in sorted(records, key=lambda r: -r["epsilon"])
    ]
    yield table(rows[0], rows[1:])


def _tuned(records: Sequence[Record]) -> Iterable[str]:
    for size in sorted(_unique(records, "batch"), reverse=True):
        here = [r for r in records if r["batch"] == size]
        yield f"## Fine-tuned with batches of {size}"
        yield "Score on 2,000 test samples after 0 / 50 / 150 / 500 steps."
        networks = _unique(here, "network")
        rows = [["arm", *networks]]
        for arm in _unique(here, "arm"):
            cells = []
            for name in networks:
                found = [r["scores"] for r in here if (r["network"], r["arm"]) == (name, arm)]
                steps = found[0] if found else {}
                cells.append(" / ".join(f"{mean(one[step] for one in found):.1f}" for step in steps) or "–")
            rows.append([arm, *cells])
        yield table(rows[0], rows[1:])


def _collect(records: Sequence[Record], field: str) -> dict[tuple[str, Any], list[float]]:
    found: dict[tuple[str, Any], list[float]] = defaultdict(list)
    for record in records:
        found[record["network"], record[field]].append(record["score"])
    return found


def _cell(scores: Sequence[float], base: Sequence[float]) -> str:
    if not scores or not base:
        return "–"
    spread = f" ± {stdev(scores):.1f}" if len(scores) > 1 else ""
    return f"{mean(scores):.1f}{spread} ({100 * mean(scores) / mean(base):.1f})"


def _mean(scores: Sequence[float]) -> str:
    return f"{mean(scores):.1f}" if scores else "–"


def _unique(records: Sequence[Record], field: str) -> list[Any]:
    return list(dict.fromkeys(record[field] for record in records))
