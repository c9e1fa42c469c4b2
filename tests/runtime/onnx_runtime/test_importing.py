"""ONNX Runtime reports nothing: no database of events in the user's cache, unless the user wants it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASK = "from llava_edge.runtime import load; load().encode_image('examples/sign.png')"
BARE = """
import onnxruntime
from llava_edge.runtime import demo_bundle
onnxruntime.InferenceSession(demo_bundle() / "vision.onnx", providers=["CPUExecutionProvider"])
"""
ROOT = Path(__file__).parents[3]


def files_of(code: str, cache: Path, **environment: str) -> set[str]:
    """What a process that runs ``code`` leaves in a user's folder of its own."""
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    own = {"HOME": str(cache), "XDG_CACHE_HOME": str(cache / ".cache")}
    subprocess.run([sys.executable, "-c", code], env=kept | own | environment, cwd=ROOT, check=True)
    return {path.name for path in cache.rglob("*") if path.is_file()}


def test_a_session_leaves_no_database(tmp_path: Path) -> None:
    assert not files_of(ASK, tmp_path)


def test_the_library_alone_would(tmp_path: Path) -> None:
    """Else the test above shows nothing."""
    if not files_of(BARE, tmp_path):
        pytest.skip("this onnxruntime has no telemetry")


def test_who_asks_for_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from llava_edge.runtime.onnx_runtime.importing import TELEMETRY, import_onnxruntime

    monkeypatch.setenv(TELEMETRY, "0")
    import_onnxruntime()
    assert os.environ[TELEMETRY] == "0"
