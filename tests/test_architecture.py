"""The rooms: who may import whom, and what importing the runtime must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("runtime", "export", "quantize", "train", "benchmark", "cli")
ALLOWED = {
    "runtime": set(),
    "export": {"runtime"},
    "quantize": {"runtime"},
    "train": {"runtime"},
    "benchmark": {"runtime"},
    "cli": {"runtime", "export", "quantize", "train", "benchmark"},
}
HEAVY = {"torch", "transformers", "onnx", "optimum", "gguf", "safetensors", "sentencepiece", "tokenizers"}
RUNTIME_PACKAGES = {"numpy", "PIL", "onnxruntime", "llama_cpp", "jinja2"}


def imports(path: Path) -> set[tuple[str, str]]:
    """(kind, name) of every import in a file: ("room", other room) or ("package", top-level name)."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.ImportFrom) and node.level == 2:
            found.add(("room", (node.module or "").split(".")[0]))
            continue
        else:
            continue
        for name in names:
            parts = name.split(".")
            found.add(("room", parts[1]) if parts[0] == "llava_edge" else ("package", parts[0]))
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_point_one_way(room: str) -> None:
    for path in sorted((ROOT / room).rglob("*.py")):
        rooms = {name for kind, name in imports(path) if kind == "room"} - {room}
        assert rooms <= ALLOWED[room], f"{path} imports {sorted(rooms - ALLOWED[room])}"


def test_the_runtime_needs_little() -> None:
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        packages = {name for kind, name in imports(path) if kind == "package"} - set(sys.stdlib_module_names)
        assert packages <= RUNTIME_PACKAGES, f"{path} imports {sorted(packages - RUNTIME_PACKAGES)}"


def test_only_llm_imports_llama_cpp() -> None:
    users = [path.name for path in (ROOT / "runtime").rglob("*.py") if ("package", "llama_cpp") in imports(path)]
    assert users == ["llm.py"]


@pytest.mark.parametrize(
    "statement", ["import llava_edge.runtime", "import llava_edge.runtime.model", "import llava_edge.cli.main"]
)
def test_imports_stay_light(statement: str) -> None:
    """In a fresh interpreter: neither torch nor transformers, nor what belongs to export."""
    code = f"{statement}\nimport sys\nprint(*sorted(name.split('.')[0] for name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(run.stdout.split())


def test_public_names_are_what_all_says() -> None:
    import llava_edge.runtime as runtime

    assert all(getattr(runtime, name) is not None for name in runtime.__all__)
    with pytest.raises(AttributeError, match="no attribute 'torch'"):
        _ = runtime.torch


def test_modules_stay_small() -> None:
    """400 lines are the limit; past it a module holds two things."""
    long = {
        str(path.relative_to(ROOT)): count
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long
