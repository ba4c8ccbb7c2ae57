"""A terminal sees the number of the pass, a log one line, and neither for what is over soon."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

import idealgroups as ig
from idealgroups import progress
from idealgroups.planner import TYPICAL_PASSES


def test_a_terminal_shows_the_pass_and_removes_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with progress.steps(True, "planning", total=2) as advance:
        time.sleep(0.1)
        advance()
        advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.split("\r\x1b[K")
    assert lines == ["", "planning: pass 1 of about 2", "planning: pass 2 of about 2", "planning: pass 3", ""]


def test_what_is_over_soon_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for show in (True, None, False):
        with progress.steps(show, "planning", total=2) as advance:
            advance()
    assert capsys.readouterr().err == ""


def test_a_log_has_one_line_if_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 7.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.steps(None, "planning", total=6) as advance:
        advance()
        advance()
    assert capsys.readouterr().err == "planning, about 6 passes, roughly 42 s\n"


@pytest.mark.parametrize(
    ("total", "line"),
    [(6, "planning, about 6 passes of more than 0 s\n"), (None, "planning takes longer than 0 s\n")],
)
def test_a_log_has_its_line_although_the_first_pass_does_not_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, total: int | None, line: str
) -> None:
    monkeypatch.setattr(progress, "LONG", 0.1)
    with progress.steps(None, "planning", total=total) as advance:
        time.sleep(0.3)
        advance()
    assert capsys.readouterr().err == line


def test_false_is_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LONG", 0.0)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with progress.steps(False, "planning", total=2) as advance:
        time.sleep(0.05)
        advance()
    assert capsys.readouterr().err == ""


CLOCK = [0.0]


class ThreeSeconds(nn.Sequential):
    """Its forward pass takes three seconds, by the clock of the tests below."""

    def forward(self, x: Tensor) -> Tensor:
        CLOCK[0] += 3.0
        return super().forward(x)


def test_the_time_announced_is_that_of_one_pass_times_the_usual_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    CLOCK[0] = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: CLOCK[0])
    torch.manual_seed(0)
    blocks = [m for _ in range(6) for m in (nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())]
    net = ThreeSeconds(nn.Conv2d(3, 16, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    ig.plan(net, torch.randn(4, 3, 16, 16))
    announced = 3 * TYPICAL_PASSES
    assert capsys.readouterr().err == f"planning, about {TYPICAL_PASSES} passes, roughly {announced} s\n"
    assert announced / 2 <= CLOCK[0] <= announced * 2


def test_only_passes_that_are_made_are_counted() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    passes: list[str] = []
    with ig.planner.Survey(net, torch.randn(4, 3, 8, 8)) as survey:
        survey.plan("layer", advance=lambda: passes.append("layer"))
        survey.plan("fixed-2", advance=lambda: passes.append("fixed-2"))
    assert passes == ["layer", "layer", "fixed-2"]
