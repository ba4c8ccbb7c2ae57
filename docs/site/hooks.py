"""What mkdocs does beside its plugins: pages from outside ``docs/``, notebooks, and formulas without a script.

The same files are read on a code host, so links in them are paths in the repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)")
LOADED = re.compile(
    r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>"""
    r"""|<(?:script|style)\b[^>]*>[^<]*\b(?:import|url)\b[^<;]*["'(](?:https?:)?//"""
)
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def uri(path: Path) -> str:
    """Where a file of the repository is on the site."""
    if path == ROOT / "README.md":
        return "index.md"
    if path.suffix == ".ipynb":
        path = path.with_suffix(".md")
    return (path.relative_to(DOCS) if path.is_relative_to(DOCS) else path.relative_to(ROOT)).as_posix()


def on_files(files: Files, config: Any) -> Files:
    """Add the README, the notebooks, and every file outside ``docs/`` that a page links to."""
    found = {*DOCS.glob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))}
    found |= {*ROOT.glob("notebooks/*.ipynb")}
    todo = [*found]
    while todo:
        page = todo.pop()
        if page.suffix == ".ipynb":
            add_notebook(page, files, config)
        elif not page.is_relative_to(DOCS):
            files.append(File.generated(config, uri(page), abs_src_path=str(page)))
        if page.suffix == ".md":
            targets = {(page.parent / name).resolve() for _, name in LINK.findall(page.read_text(encoding="utf-8"))}
            fresh = {target for target in targets if target.is_file() and not target.is_relative_to(DOCS)} - found
            found |= fresh
            todo += fresh
    return files


def add_notebook(path: Path, files: Files, config: Any) -> None:
    """Add a page that shows a notebook with the outputs it was saved with, its pictures, and the notebook itself."""
    exporter = MarkdownExporter()
    text, resources = exporter.from_filename(path, {"unique_key": path.stem, "output_files_dir": path.stem})
    text += f'\n<a href="../{path.name}" download>Download this notebook</a>\n'
    files.append(File.generated(config, uri(path), content=text))
    files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for name, picture in resources["outputs"].items():
        files.append(File.generated(config, f"notebooks/{name}", content=picture))


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn paths in the repository into paths on the site."""
    source = Path(page.file.abs_src_path or ROOT / page.file.src_uri)
    here = Path(uri(source)).parent

    def moved(match: re.Match[str]) -> str:
        target = (source.parent / match[2]).resolve()
        if target == ROOT / "recipes":
            target = DOCS / "recipes.md"
        if not target.is_relative_to(ROOT):
            return match[0]
        return match[1] + os.path.relpath(uri(target), here).replace(os.sep, "/")

    return LINK.sub(moved, re.sub(r"^```(\w+) \w+$", r"```\1", markdown, flags=re.MULTILINE))


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Write formulas as MathML, which browsers show without a script."""

    def formula(match: re.Match[str]) -> str:
        text = match[2].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        if match[1] == "div":
            return f'<div class="formula">{convert(text, display="block")}</div>'
        return convert(text)

    return FORMULA.sub(formula, html)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that loads something from elsewhere."""
    if found := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads something from elsewhere: {found[0]}")
    return output
