"""What a newcomer meets first: the import, the names behind ``ig.``, help and version."""

from __future__ import annotations

import ast
import inspect
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import idealgroups as ig

SOURCE = Path(ig.__file__).parent


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent), **environment},
    )


def seconds(*arguments: str) -> float:
    """Return the processor time of a child process: what it needs on a machine with nothing else to do."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert python(*arguments).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["plan", "--help"], []])
def test_help_and_version_answer_within_half_a_second_of_pythons_start(arguments: list[str]) -> None:
    start = min(seconds("-c", "pass") for _ in range(3))
    assert min(seconds("-m", "idealgroups", *arguments) for _ in range(3)) - start < 0.5


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["plan", "--help"], ["nonsense"]])
def test_neither_torch_nor_matplotlib_is_imported_for_them(arguments: list[str]) -> None:
    code = f"""
import sys
from idealgroups.cli.app import main
try:
    main({arguments})
except SystemExit:
    pass
sys.stderr.write(repr(sorted({{"torch", "numpy", "matplotlib"}} & sys.modules.keys())))
"""
    assert python("-c", code).stderr.endswith("[]")


def test_the_library_imports_no_package_of_the_command_line_and_no_extra() -> None:
    code = """
import sys
import idealgroups as ig
before = "torch" in sys.modules
[getattr(ig, name) for name in ig.__all__]
unwanted = {"cyclopts", "rich", "matplotlib", "torchvision", "timm", "scipy", "sklearn"}
print(before, sorted(unwanted & sys.modules.keys()))
"""
    assert python("-c", code).stdout.strip() == "False []"


def test_tab_shows_the_public_names_only() -> None:
    assert dir(ig) == sorted([*ig.__all__, "__version__"])
    assert all(getattr(ig, name) is not None for name in dir(ig))
    with pytest.raises(AttributeError, match="has no attribute 'plann'"):
        ig.plann  # noqa: B018


def test_what_a_type_checker_sees_is_what_a_program_gets() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == vars(ig)["_HOMES"]
    assert sorted(seen) == sorted(ig.__all__)


def test_no_public_name_is_the_name_of_a_module() -> None:
    """Importing such a module would replace the function."""
    modules = {path.stem for path in SOURCE.iterdir()}
    assert not modules & {*ig.__all__}


def test_a_checkout_that_is_not_installed_can_be_imported() -> None:
    code = """
import importlib.metadata
def absent(name):
    raise importlib.metadata.PackageNotFoundError(name)
importlib.metadata.version = absent
import idealgroups
print(idealgroups.__version__)
"""
    assert python("-c", code).stdout.strip() == "unknown"


@pytest.mark.parametrize(
    ("module", "method", "hint"),
    [
        ("matplotlib", "plot", r"plots need matplotlib; pip install 'idealgroups[plot]'."),
        ("pandas", "to_frame", "data frames need pandas; pip install pandas."),
    ],
)
def test_what_is_optional_says_how_to_install_it(
    module: str, method: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = ig.WeightGradient(name="0.weight", relative=1.0)
    measured = ig.Measurement(model="net", input="2x3", seed=0, gradients=ig.Gradients(layers=(layer,)))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ig.IdealGroupsError) as raised:
        getattr(measured, method)()
    assert str(raised.value) == hint


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_help_can_be_written_in_any_encoding(encoding: str) -> None:
    for arguments in ([], ["plan", "--help"], ["measure", "--help"], ["compare", "--help"], ["nonsense"]):
        done = python("-m", "idealgroups", *arguments, PYTHONIOENCODING=encoding)
        assert "Traceback" not in done.stderr


def test_every_type_that_a_public_attribute_returns_is_public() -> None:
    public = {name: getattr(ig, name) for name in ig.__all__}
    classes = {value for value in public.values() if inspect.isclass(value)}
    missing = set()

    def look(hint: object, where: str) -> None:
        for part in get_args(hint):
            look(part, where)
        if inspect.isclass(hint) and hint.__module__.startswith("idealgroups.") and hint not in classes:
            missing.add(f"{where}: {hint.__qualname__}")

    for name, value in public.items():
        if not inspect.isclass(value):
            look(get_type_hints(value).get("return") if callable(value) else None, name)
            continue
        for key, hint in get_type_hints(value).items():
            if not key.startswith("_"):
                look(hint, f"{name}.{key}")
        for key, attribute in vars(value).items():
            function = attribute.fget if isinstance(attribute, property) else attribute
            if not key.startswith("_") and inspect.isfunction(function) and key != "choose":
                look(get_type_hints(function).get("return"), f"{name}.{key}")
    assert missing == set()
