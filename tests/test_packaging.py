"""What is published is whole: the files of the source distribution, the versions that are named, the citation."""

from __future__ import annotations

import re
import subprocess
import tomllib
import zlib
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

ROOT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
CITATION = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
POLICY = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")


def oldest_python() -> str:
    return PROJECT["requires-python"].removeprefix(">=")


def test_the_source_distribution_holds_every_tracked_file_but_the_plots() -> None:
    """What the build's own code takes, beside what git tracks."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    taken = {Path(file.distribution_path).as_posix() for file in SdistBuilder(str(ROOT)).recurse_included_files()}
    added_to_every_one = {"pyproject.toml", "LICENSE", ".gitignore"}
    missing = {name for name in tracked - taken - added_to_every_one if not re.search(r"/runs/\w+/plots/", name)}
    assert missing == set()
    assert not [name for name in taken if "/plots/" in name]
    assert sum(len(zlib.compress((ROOT / name).read_bytes())) for name in taken & tracked) < 3e6  # what is downloaded


def test_the_readme_of_a_package_index_has_no_link_and_no_picture_that_leads_nowhere() -> None:
    """There is no address of the repository: what is relative in a clone would be dead anywhere else."""
    shown = ProjectMetadata(str(ROOT), PluginManager()).core.readme
    written = (ROOT / "README.md").read_text(encoding="utf-8")
    relative = re.findall(r"(!?)\[([^]]*)\]\((?!\w+:)([^)#]*)", written)
    assert {picture for picture, _, _ in relative} == {"", "!"}
    assert re.findall(r"\]\((?!\w+:)[^)]*\)", shown) == []
    for picture, text, file in relative:
        assert text in shown
        assert picture or f"`{file}`" in shown
    without = re.compile(r"!?\[([^]]*)\]\([^)]*\)")
    words = re.findall(r"\w+", without.sub(r"\1", written))
    assert [word for word in set(words) if words.count(word) > len(re.findall(rf"\b{word}\b", shown))] == []


def test_the_oldest_python_is_the_one_that_is_checked_and_classified() -> None:
    oldest = oldest_python()
    assert PYPROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    classified = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert classified[0] == oldest
    assert f"| Python | {oldest} |" in POLICY


def test_the_policy_names_the_oldest_version_of_every_dependency() -> None:
    for dependency in PROJECT["dependencies"]:
        name, _, version = dependency.partition(">=")
        assert re.search(rf"\| {name} \| {re.escape(version)} \|", POLICY), dependency


def test_the_package_says_that_it_is_typed() -> None:
    assert "Typing :: Typed" in PROJECT["classifiers"]
    assert (ROOT / "src" / "idealgroups" / "py.typed").exists()
    wheel = {Path(file.distribution_path).as_posix() for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert "idealgroups/py.typed" in wheel
    assert {name.split("/")[0] for name in wheel} == {"idealgroups"}


def test_the_license_is_an_expression_and_no_classifier_repeats_it() -> None:
    assert PROJECT["license"] == "MIT"
    assert all((ROOT / name).exists() for name in PROJECT["license-files"])
    assert not [classifier for classifier in PROJECT["classifiers"] if classifier.startswith("License ::")]


def test_the_citation_has_the_version_the_license_and_the_paper() -> None:
    assert f"\nversion: {PROJECT['version']}\n" in CITATION
    assert f"\nlicense: {PROJECT['license']}\n" in CITATION
    assert "2302.03193" in CITATION
    assert "our own derivation" in " ".join(CITATION.split())


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert PROJECT["version"].split(".dev")[0] == first


def test_the_policy_names_the_format_of_a_plan_file() -> None:
    from idealgroups.results import FORMAT

    assert f"format {FORMAT}" in POLICY
