"""The documents are true: their code runs, their output is the real output, their links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def prose(page: Path) -> str:
    """Return a page without its code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL))


def anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives to the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    names = {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", t)).lower().replace(" ", "-") for t in titles
    }
    return names | set(re.findall(r'<a (?:name|id)="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page if not name else (page.parent / name).resolve()
        if file.parent.name == "plots" and (ROOT / "PKG-INFO").exists():
            continue  # the source distribution comes without the study's plots
        assert file.exists(), f"{page.name} links to {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{page.name} links to {target}"


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 80


def test_the_code_of_the_readme_runs() -> None:
    torchvision = pytest.importorskip("torchvision")
    names: dict[str, object] = {"model": torchvision.models.resnet18(), "example_inputs": torch.randn(2, 3, 32, 32)}
    found = blocks(README, "python")
    assert found
    for block in found:
        exec(block, names)


def has_code(page: Path) -> bool:
    return page.parent == ROOT / "docs" and page.stem not in ("saving", "pretrained") and bool(blocks(page, "python"))


@pytest.mark.filterwarnings("default")  # those of other libraries
@pytest.mark.parametrize("page", [page for page in PAGES if has_code(page)], ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From top to bottom, as it stands; saving.md and pretrained.md have tests of their own."""
    code = blocks(page, "python")
    needed = {"getting-started": ["matplotlib"], "pictures": ["matplotlib", "pandas"]}.get(page.stem, [])
    for library in (*re.findall(r"^(?:import|from) (?:torch, )?(\w+)", "".join(code), re.MULTILINE), *needed):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in code:
        exec(block, names)


def test_every_block_of_python_is_run_or_says_why_not() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for start in re.finditer(r"^```text\n(?=.*(?:ig\.|import ))", text, re.MULTILINE):
            assert "<!-- not run here: " in text[: start.start()].rstrip().splitlines()[-1], page.name


def shown() -> str:
    """Return the first block of output in the README."""
    return re.findall(r"\n```\n(layer .*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[0]


def masked(line: str) -> str:
    """Return a line with # for every number, because numbers differ a little between machines."""
    return re.sub(r"[−+]?\d+(\.\d+)?", "#", line)


def printed_by(arguments: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "idealgroups", *arguments],
        env={**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout


@pytest.mark.slow
def test_the_readme_shows_what_the_first_command_prints() -> None:
    pytest.importorskip("torchvision")
    install, _, command = blocks(README, "sh first")[0].strip().partition(" && ")
    assert install == 'pip install -e ".[zoo]"'
    program, *arguments = shlex.split(command)
    assert program == "idealgroups"
    kept = os.environ.get("IDEALGROUPS_CI_PRINTED")  # .ci/run has just run the command
    printed = Path(kept).read_text(encoding="utf-8") if kept else printed_by(arguments)
    shown_table, shown_rest = shown().rstrip("\n").split("\n\n", 1)
    table, rest = printed.rstrip("\n").partition("\n\nApply it in Python")[0].split("\n\n", 1)
    assert "⋮" in shown_table  # the README says so
    assert shown_table.splitlines()[0].split() == table.splitlines()[0].split()
    for row in (1, -1):  # rows of equal layers are joined, so their number may differ
        assert masked(shown_table.splitlines()[row]).split()[-3:] == masked(table.splitlines()[row]).split()[-3:]
    assert " ".join(masked(shown_rest).split()) == " ".join(masked(rest).split())
    for pattern, tolerance in ((r"→ ([−+][\d.]+) \(limit", 0.4), (r"median\s+group size ([\d.]+)", 3.0)):
        then, now = (float(re.search(pattern, text)[1].replace("−", "-")) for text in (shown_rest, rest))
        assert abs(then - now) <= tolerance


@pytest.mark.parametrize(
    "command",
    [
        line.split("#")[0].strip()
        for page in PAGES
        for block in blocks(page, "sh")
        for line in block.replace("\\\n", "").splitlines()
        if line.startswith("idealgroups ")
    ],
)
def test_the_options_of_every_command_exist(command: str) -> None:
    from idealgroups.cli.app import app

    words = shlex.split(command)[1:]
    app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize(
    ("page", "refused"),
    [
        ('<script src="https://x.org/a.js"></script>', True),
        ("<img alt='' src='//x.org/a.png'>", True),
        ('<link rel="stylesheet" href="http://x.org/a.css">', True),
        ('<script type="module">import a from "https://x.org/a.js"</script>', True),
        ("<style>@import url(https://x.org/a.css);</style>", True),
        ('<a href="https://x.org">elsewhere</a> <code>import "https://x.org"</code>', False),
        ('<script src="../assets/a.js"></script><img src="plan.svg">', False),
    ],
)
def test_the_site_refuses_what_is_loaded_from_elsewhere(
    page: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("latex2mathml.converter", "mkdocs.exceptions", "mkdocs.structure.files", "nbconvert"):
        monkeypatch.setitem(sys.modules, name, MagicMock())  # what the check does not need
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "site" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert bool(hooks.LOADED.search(page)) == refused
