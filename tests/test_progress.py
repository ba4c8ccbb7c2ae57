"""A bar shows on what takes longer than a second, and on nothing else."""

from __future__ import annotations

import time

import pytest

from idealgroups import progress


def test_a_bar_appears_after_a_while(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    for patience, shown in ((0.0, True), (100.0, False)):
        monkeypatch.setattr(progress, "PATIENCE", patience)
        with progress.steps(True, "planning", total=2) as advance:
            time.sleep(0.1)
            advance()
            advance()
        captured = capsys.readouterr()
        assert ("planning" in captured.err) is shown
        assert captured.out == ""


def test_no_bar_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.steps(None, "planning", total=2) as advance:
        advance()
    assert capsys.readouterr().err == ""
