"""The wheel: what is in it, and that it works in a fresh environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
ROOMS = ("runtime", "store", "export", "quantize", "train", "benchmark", "serve", "cli")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools keeps what it built before in the checkout, modules that have gone included."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"
    for room in ROOMS:
        if (ROOT / room).is_dir():
            shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder)]
    subprocess.run([*command, str(copy)], check=True, capture_output=True)
    (path,) = folder.glob("llava_edge-*.whl")
    return path


def test_every_subpackage_is_listed() -> None:
    """setuptools takes what pyproject.toml lists; a folder that is missing there is missing in the wheel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {path.parent.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)
    assert sorted(project["tool"]["setuptools"]["packages"]) == sorted(
        ".".join(("llava_edge", *folder.parts)) for folder in folders
    )


def test_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {f"llava_edge/{path.relative_to(ROOT)}" for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}
    tops = {name.split("/")[0] for name in names}
    assert tops == {"llava_edge"}
    extra = {name.split("/")[1] for name in names} - set(ROOMS)
    assert not extra
    pages = ("serve/page/index.html", "serve/confirm_page/index.html")
    for data in ("runtime/py.typed", "runtime/demo/manifest.json", "benchmark/demo_heldout/questions.json", *pages):
        assert f"llava_edge/{data}" in names


def test_demo_bundle_is_small(wheel: Path) -> None:
    sizes = [one.file_size for one in zipfile.ZipFile(wheel).infolist() if "/runtime/demo/" in one.filename]
    assert 0 < sum(sizes) < 20_000_000


def test_wheel_installs_into_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    """In a new venv that borrows this one's packages; the installed copy answers, not the checkout."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    import numpy

    (site / "borrowed.pth").write_text(str(Path(numpy.__file__).parent.parent) + "\n")
    python = tmp_path / "venv" / "bin" / "python"
    code = "import llava_edge.runtime as r; print(r.__file__); print(r.load().manifest.name)"
    run = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    where, name = run.stdout.split("\n")[:2]
    assert where.startswith(str(site))
    assert name
    from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle

    assert name == Bundle.open(demo_bundle()).manifest.name
