"""The tree holds its promises: no import circle, no import upwards, a theory without torch, readable files."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).parents[1]
MOST_LINES = 400

BELOW: dict[str, set[str]] = {
    "errors": set(),
    "theory": {"errors"},
    "checking": {"errors"},
    "records": {"errors", "theory", "checking"},
    "sandbox": {"errors"},
    "norms": {"errors", "sandbox"},
    "measuring": {"errors", "theory", "records", "sandbox", "norms"},
    "calibration": {"errors", "theory", "records", "sandbox", "norms"},
}
"""The wings at the bottom, and all that each may import; what is not named here stands above them."""

FACES = {"cli", "api", "comparison", "repeats", "__main__"}
"""Nothing imports these but one another and the package's own names."""


def modules(folder: Path) -> dict[str, Path]:
    """Dotted name → file of every module below ``folder``, the root of an import path."""
    found = {}
    for file in sorted(folder.rglob("*.py")):
        name = ".".join(file.relative_to(folder).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = file
    return found


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Every absolute name that is imported, in functions too; not what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.expr):  # holds no statement, and most nodes are below one
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        yield from imported(node, package)


def edges(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """Module → the modules of ``files`` that it imports."""
    found = {}
    for name, file in files.items():
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        names = set(imported(ast.parse(file.read_text(encoding="utf-8")), package))
        found[name] = {other for other in names & set(files) if not name.startswith(f"{other}.") and other != name}
    return found


LIBRARY = edges(modules(ROOT / "src"))
EXPERIMENTS = edges({name: file for name, file in modules(ROOT).items() if name.startswith("experiments")})


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_a_circle_that_hides_in_a_function_is_found(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("import two\n")
    (tmp_path / "two.py").write_text("def f():\n    from one import g\n")
    assert set(circle(edges(modules(tmp_path)))) == {"one", "two"}
    (tmp_path / "two.py").write_text("if TYPE_CHECKING:\n    from one import g\n")
    assert circle(edges(modules(tmp_path))) == []


@pytest.mark.parametrize("graph", [LIBRARY, EXPERIMENTS], ids=["library", "experiments"])
def test_no_import_circle(graph: dict[str, set[str]]) -> None:
    assert len(graph) > 30
    assert circle(graph) == []


def wing(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("name", BELOW)
def test_a_wing_imports_nothing_above_itself(name: str) -> None:
    inside = {module: others for module, others in LIBRARY.items() if wing(module) == name}
    assert inside
    users = [(module, other) for module, others in inside.items() for other in others]
    assert [pair for pair in users if wing(pair[1]) not in BELOW[name] | {name}] == []


def test_nothing_imports_the_faces() -> None:
    users = {
        f"{module} → {other}"
        for module, others in LIBRARY.items()
        for other in others
        if wing(other) in FACES and wing(module) not in FACES and module != "idealgroups"
    }
    assert users == set()


def test_the_library_does_not_know_its_experiments() -> None:
    for name, file in modules(ROOT / "src").items():
        assert not any(other.startswith("experiments") for other in imported(ast.parse(file.read_text()), name)), name


def test_the_theory_and_the_first_import_need_no_torch() -> None:
    names = [name for name in LIBRARY if wing(name) in ("theory", "errors")]
    code = f"import sys; sys.modules['torch'] = None; import idealgroups, {', '.join(names)}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "src", timeout=60)


def test_no_file_of_the_library_is_too_long_to_read() -> None:
    lengths = {name: len(file.read_text().splitlines()) for name, file in modules(ROOT / "src").items()}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_the_wheel_holds_the_package_alone() -> None:
    packages = find_packages(str(ROOT / "src"))
    assert {package.split(".")[0] for package in packages} == {"idealgroups"}
    assert {name for name, file in modules(ROOT / "src").items() if file.name == "__init__.py"} == set(packages)


def test_the_tests_mirror_the_tree() -> None:
    wings = {path.name for path in (ROOT / "src" / "idealgroups").iterdir() if (path / "__init__.py").exists()}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("test_*.py"))}
    assert folders - {"recipes", "experiments"} <= wings
