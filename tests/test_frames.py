"""Rows of results, by hand, and the formats they are written in."""

from __future__ import annotations

import csv
import io
import math

import pytest

import idealgroups as ig
from idealgroups.frames import to_markdown
from idealgroups.records import Gradients, WeightGradient
from test_tables import CALIBRATED, PLAN

MEASURED = ig.Measurement(
    model="net",
    input="2x3",
    seed=0,
    gradients=Gradients(
        layers=(
            WeightGradient(name="a.weight", relative=math.e, norm=2.0, numel=6),
            WeightGradient(name="b.weight", relative=0.0, in_line=False),
        )
    ),
)


def test_csv_holds_every_layer_unrounded() -> None:
    rows = list(csv.DictReader(io.StringIO(PLAN.to_csv())))
    assert [(row["layer"], int(row["num_groups"]), int(row["group_size"])) for row in rows] == [
        (site.name, site.num_groups, site.group_size) for site in PLAN.sites
    ]
    assert rows[0]["groups_before"] == ""
    assert float(rows[1]["gain"]) == PLAN.sites[1].gain
    assert "residual" not in rows[0]
    assert float(next(csv.DictReader(io.StringIO(CALIBRATED.to_csv())))["residual"]) == 0.0123
    measured = list(csv.DictReader(io.StringIO(MEASURED.to_csv())))
    assert (float(measured[0]["log_u"]), float(measured[1]["log_u"])) == (1.0, -math.inf)


def test_markdown_is_a_table_without_empty_columns() -> None:
    lines = MEASURED.to_markdown().splitlines()
    assert lines == [
        "| layer | u | log_u | norm | numel | in_line |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| a.weight | 2.72 | 1 | 2 | 6 | True |",
        "| b.weight | 0 | -inf | 1 | 1 | False |",
    ]
    assert to_markdown([{"layer": "a|b\\c\nd", "x": None}]).splitlines()[2] == "| a\\|b\\\\c d |"
    assert len(PLAN.to_markdown().splitlines()) == 2 + len(PLAN.sites)


def test_frames_hold_the_same_rows() -> None:
    pytest.importorskip("pandas")
    frame = PLAN.to_frame()
    assert frame.set_index("layer")["num_groups"].to_dict() == PLAN.num_groups
    assert MEASURED.to_frame()["in_line"].tolist() == [True, False]
    compared = ig.Comparison((PLAN, PLAN)).to_frame()
    assert compared.columns.tolist()[:3] == ["strategy", "trend", "spread"]
    assert compared["most_groups"].tolist() == [128, 128]
