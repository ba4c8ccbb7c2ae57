"""The examples and the code of the guide run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.py")), ids=lambda file: file.stem)
def test_examples_run(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(file)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "guide.md").read_text(), re.DOTALL)
    first = blocks[0].replace("torch.randn(8, 3, 128, 128)", "torch.randn(2, 3, 64, 64)")
    names: dict[str, object] = {}
    exec(first, names)
    names |= {"images": torch.randn(2, 3, 64, 64), "labels": torch.tensor([1, 2])}
    import torchvision

    for block in blocks[1:]:
        names["model"] = torchvision.models.resnet18()
        exec(block.replace('"backbone.*"', '"layer4.*"'), names)


def test_the_readme_shows_what_the_first_command_prints() -> None:
    """Same columns and the same summary form; numbers may differ between machines."""
    readme = (ROOT / "README.md").read_text()
    assert "layer                                     kind         channels" in readme
    assert "torchvision:resnet18 on 8x3x128x128, isometric, budget ε = " in readme
    assert "pip install" in readme.split("```sh first")[1].split("```")[0]
