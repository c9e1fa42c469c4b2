"""Setting up the OpenVINO peer: what is run, what is kept, what a failure leaves; pip is a stand-in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from llava_edge.benchmark.contestants import openvino_setup
from llava_edge.benchmark.contestants.openvino_setup import set_up
from llava_edge.runtime.errors import CheckpointError, NativeError


class Runner:
    """Records commands; the converter writes a file as the real one does, or fails."""

    def __init__(self, fails: str = "") -> None:
        self.commands: list[list[str]] = []
        self.fails = fails

    def __call__(self, command: Sequence[str]) -> None:
        self.commands.append(list(command))
        if self.fails and self.fails in command:
            raise NativeError(expected="it to finish", got="status 1", fix="see above")
        if "export" in command:
            (Path(command[-1]) / "openvino_language_model.xml").write_text("<net/>")


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def create(folder: Path, *, with_pip: bool, clear: bool) -> None:
        assert with_pip
        assert clear
        (folder / "bin").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(openvino_setup.venv, "create", create)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    return tmp_path / "checkpoint"


def test_environment_and_model_are_made_once(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "peer"
    first = Runner()
    set_up(checkpoint, folder, weights="int8", run=first)
    python = str(folder / "venv" / "bin" / "python")
    assert [command[:4] for command in first.commands[:2]] == [
        [python, "-m", "pip", "install"],
        [python, "-m", "pip", "uninstall"],
    ]
    assert "torchvision" in first.commands[1]
    assert first.commands[2][first.commands[2].index("--weight-format") + 1] == "int8"
    assert (folder / "model" / "openvino_language_model.xml").is_file()
    assert json.loads((folder / "made.json").read_text())["weights"] == "int8"
    second = Runner()
    set_up(checkpoint, folder, weights="int8", run=second)
    assert second.commands == []


@pytest.mark.parametrize("fails", ["install", "export"])
def test_a_failed_step_leaves_nothing_that_looks_finished(checkpoint: Path, tmp_path: Path, fails: str) -> None:
    folder = tmp_path / "peer"
    with pytest.raises(NativeError):
        set_up(checkpoint, folder, run=Runner(fails))
    assert not (folder / "model").exists()
    assert (folder / "venv" / "ready").exists() is (fails == "export")
    assert not list(folder.glob(".model.*"))
    again = Runner()
    set_up(checkpoint, folder, run=again)
    assert len(again.commands) == (3 if fails == "install" else 1)
    assert (folder / "model").is_dir()


def test_a_folder_without_a_checkpoint_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no config"):
        set_up(tmp_path, tmp_path / "peer", run=Runner())
    assert not (tmp_path / "peer").exists()
