"""The HTML of plans: what is in it, that nothing in it comes from elsewhere, and what a browser makes of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import idealgroups as ig
from idealgroups.repeats import Repeats
from test_frames import MEASURED
from test_tables import BATCH_NORM, CALIBRATED, PLAN, UNIFORM, site

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "br", "img", "hr"}


class Page(HTMLParser):
    """Every tag that is closed in order, with its attributes; and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def written(tmp_path: Path) -> Path:
    pytest.importorskip("matplotlib")
    file = tmp_path / "plan.html"
    replace(PLAN, made_with="idealgroups 1, torch 2").save_report(file)
    return file


def test_a_report_says_what_a_plan_says(written: Path) -> None:
    page = Page(written.read_text(encoding="utf-8"))
    for text in (
        "Groups for example:net",
        "isometric: relative gradients differ by a factor of 1.0",
        "trend of log u −2.35\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}+0.00 (limit −1.00)",
        "head.block",
        "calls F.group_norm itself",
        'ig.Plan.load("plan.json")',
        "idealgroups 1, torch 2",
        "with the plan: trend",
        "37 groups would have 1 element each",
    ):
        assert text in page.text, text
    assert [tag for tag, _ in page.tags].count("svg") == 1


def test_a_report_loads_nothing(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    for tag, attributes in Page(text).tags:
        assert tag not in {"script", "link", "iframe", "img", "object", "embed"}
        for name, value in attributes.items():
            if name in {"src", "href", "xlink:href", "action"}:
                assert (value or "").startswith("#")
    assert not re.search(r"@import|url\((?!#)", text)


def test_names_are_escaped_everywhere() -> None:
    pytest.importorskip("matplotlib")
    evil = "</style><script>alert('x')</script><b a=\"&amp;"
    sites = (replace(site(evil, 64, 8, 32, 4), note=evil), site("last", 64, 8, None, 4))
    odd = replace(
        PLAN, model=evil, input=evil, strategy=evil, sites=sites, made_with=evil, fingerprint=evil,
        not_understood=(ig.NotUnderstood(name=evil, why=evil),),
    )  # fmt: skip
    from idealgroups.report import report

    layer = replace(MEASURED.gradients.layers[0], name=evil)
    measured = replace(MEASURED, model=evil, gradients=replace(MEASURED.gradients, layers=(layer,), silent=(evil,)))
    for text in (
        report(odd),
        *(one._repr_html_() for one in (odd, measured, ig.Comparison((odd,)), Repeats(plans=(odd, odd)))),
    ):
        page = Page(text)
        assert "script" not in {tag for tag, _ in page.tags}
        assert evil in page.text


def test_a_calibrated_plan_has_residuals_and_is_restored(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    CALIBRATED.save_report(tmp_path / "a.html")
    text = Page((tmp_path / "a.html").read_text()).text
    assert "ig.restore(model, weights)" in text
    assert "0.012" in text
    assert "What calibration could not fit" in text
    assert "How much log u rises" not in text


def test_a_notebook_highlights_what_changes() -> None:
    changed = [attributes for tag, attributes in Page(PLAN._repr_html_()).tags if tag == "tr"]
    assert [one.get("class") for one in changed] == [None, None, "changed", "changed", "changed"]
    assert "changed" not in BATCH_NORM._repr_html_().partition("</style>")[2]
    assert "<script" not in PLAN._repr_html_() + MEASURED._repr_html_()


def test_a_notebook_shows_a_comparison_as_a_table_with_the_one_to_take_in_bold() -> None:
    text = ig.Comparison((UNIFORM, PLAN))._repr_html_()
    assert re.findall(r"<td><strong>(.*?)</strong></td>", text)[0] == "isometric"
    assert "fixed-32" in Page(text).text
    assert "verdict: take isometric" in Page(text).text


def test_a_notebook_shows_the_ranges_of_several_plans_as_a_table() -> None:
    text = Page(Repeats(plans=(PLAN, PLAN))._repr_html_()).text
    assert "2 plans: the median group size is 16, the trend +0.00; 5 of 5 layers" in text


def test_bars_grow_with_the_number_of_groups() -> None:
    groups = [int(number) for number in re.findall(r"<strong>(\d+)</strong>", PLAN._repr_html_())]
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", PLAN._repr_html_())]
    assert len(groups) == len(widths)
    assert [width for _, width in sorted(zip(groups, widths, strict=True))] == sorted(widths)
    assert min(widths) > 0
    assert max(widths) == 100


def test_a_report_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ig.IdealGroupsError, match="cannot write the report to"):
        PLAN.save_report(tmp_path / "nowhere" / "a.html")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium: chromium, chromium-browser or google-chrome")
@pytest.mark.parametrize("width", [1100, 390])
def test_a_browser_shows_it_without_scrolling_sideways(written: Path, width: int) -> None:
    """Chromium's narrowest window is 500 px, so the page is put into a frame of the asked width."""
    probe = written.with_name("probe.html")
    probe.write_text(
        f'<iframe id="f" src="{written.name}" style="width:{width}px;height:900px;border:0"></iframe>'
        '<pre id="out"></pre>'
        """<script>f.onload = () => { const d = f.contentDocument, r = d.documentElement;
        const bars = [...d.querySelectorAll(".bar i")].map(b => b.getBoundingClientRect().width);
        out.textContent = JSON.stringify({wide: r.scrollWidth, bars, svg: d.querySelector("svg").clientHeight,
        text: d.body.innerText.length, loaded: performance.getEntriesByType("resource").map(e => e.name)}) }</script>"""
    )
    done = subprocess.run(
        [
            str(BROWSER),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            "--virtual-time-budget=5000",
            f"--user-data-dir={written.parent / 'profile'}",
            "--dump-dom",
            probe.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    seen = re.search(r'<pre id="out">(.*?)</pre>', done.stdout)
    assert seen is not None
    found = json.loads(seen[1])
    assert found["wide"] <= width
    assert min(found["bars"]) > 1
    assert found["svg"] > 200
    assert found["text"] > 500
    assert [name for name in found["loaded"] if not name.endswith(written.name)] == []
