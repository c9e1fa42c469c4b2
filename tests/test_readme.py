"""What the README shows is run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROOMS = ("runtime", "store", "export", "quantize", "train", "benchmark", "serve", "cli", "tests", "docs", "examples")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with the examples and recipes in it, so that what the blocks write stays out of the checkout."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "train").symlink_to(ROOT / "train")
    return tmp_path


def run(command: list[str], folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=folder, input=stdin, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )


def test_shell_blocks(workplace: Path) -> None:
    assert blocks("sh")
    for block in blocks("sh"):
        done = run(["bash", "-euo", "pipefail", "-c", block], workplace)
        assert done.returncode == 0, done.stderr
    assert (workplace / "seen.png").is_file()


def test_python_blocks(workplace: Path) -> None:
    assert blocks("python")
    for block in blocks("python"):
        done = run([sys.executable, "-W", "error", "-c", block], workplace)
        assert done.returncode == 0, done.stderr
        assert "positions were cached" in done.stdout


def test_example_program(workplace: Path) -> None:
    command = [sys.executable, "examples/chat.py"]
    done = run([*command, "examples/sign.png"], workplace, "What does the sign say?\nHow many shapes are there?\n")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()) == 2
    wrong = run([*command, "no-such.png"], workplace)
    assert wrong.returncode == 1
    assert len(wrong.stderr.strip().splitlines()) == 1


def test_make_targets_that_the_readme_names_exist() -> None:
    targets = re.findall(r"\$ make (\w+)", README)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_file_tree_is_true() -> None:
    tree = next(block for block in blocks("text") if "runtime/" in block)
    assert tuple(re.findall(r"^(\w+)/", tree, re.MULTILINE)) == ROOMS
    assert all((ROOT / room).is_dir() for room in ROOMS)
