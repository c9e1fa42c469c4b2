"""Compiled graphs are found only where GPU, driver and versions are those they were made for."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from llava_edge.runtime.onnx_runtime.compiled import (
    GRAPH,
    RECORD,
    MachineKey,
    compiled_folder,
    find_compiled,
    this_machine,
)
from llava_edge.runtime.system.machine import cache_folder

MACHINE = MachineKey("NVIDIA Test 1", "550.1", "9.0", "1.31.1", "10.9")
FINGERPRINT = "ab" * 32


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAVA_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def compile_for(machine: MachineKey, fingerprint: str = FINGERPRINT) -> Path:
    folder = compiled_folder("tensorrt", fingerprint, machine)
    folder.mkdir(parents=True)
    (folder / GRAPH).write_bytes(b"engine")
    (folder / RECORD).write_text(json.dumps({"machine": asdict(machine)}))
    return folder / GRAPH


def test_the_same_machine_finds_it() -> None:
    graph = compile_for(MACHINE)
    assert find_compiled("tensorrt", FINGERPRINT, MACHINE) == graph
    assert isinstance(find_compiled("cuda", FINGERPRINT, MACHINE), str)
    assert isinstance(find_compiled("tensorrt", "cd" * 32, MACHINE), str)


@pytest.mark.parametrize("changed", ["gpu", "driver", "capability", "onnxruntime", "tensorrt"])
def test_whatever_changes_it_is_not_used_and_said_why(changed: str) -> None:
    compile_for(MACHINE)
    said = find_compiled("tensorrt", FINGERPRINT, replace(MACHINE, **{changed: "other"}))
    assert isinstance(said, str)
    assert f"{changed} {getattr(MACHINE, changed)}, here other" in said
    assert "llava-edge optimize" in said


def test_nothing_compiled_no_gpu_and_a_broken_record() -> None:
    assert "nothing compiled" in str(find_compiled("tensorrt", FINGERPRINT, MACHINE))
    assert find_compiled("tensorrt", FINGERPRINT, None) == "nvidia-smi finds no GPU"
    (compile_for(MACHINE).parent / RECORD).write_text("{")
    assert "another machine" in str(find_compiled("tensorrt", FINGERPRINT, replace(MACHINE, driver="2")))


def nvidia_smi(folder: Path, body: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!{sys.executable}\n{body}\n")
    program.chmod(0o755)


def test_the_machine_is_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    onnxruntime = SimpleNamespace(__version__="1.31.1")
    assert this_machine(onnxruntime) is None
    nvidia_smi(tmp_path, "print('NVIDIA Test 1, 550.1, 9.0')\nprint('NVIDIA Test 2, 550.1, 8.6')")
    found = this_machine(onnxruntime)
    assert found is not None
    assert (found.gpu, found.driver, found.capability, found.onnxruntime) == ("NVIDIA Test 1", "550.1", "9.0", "1.31.1")
    for broken in ("print('No devices were found')", "raise SystemExit(9)", ""):
        nvidia_smi(tmp_path, broken)
        assert this_machine(onnxruntime) is None


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("LLAVA_EDGE_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "llava-edge"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "llava-edge"
