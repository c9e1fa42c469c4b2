"""The commands that print the prompt engine's figures, from their command lines to their tables, on a seeded model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from llava_edge.benchmark.costs import flash_handover, one_run_gain, prompt_engine_profile, prompt_weights_cost


def printed(
    command: ModuleType, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[list[str]]:
    """The cells of the table that a command prints."""
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    command.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if not row.startswith("|--")]


@pytest.fixture
def model_path(exported: Callable[..., tuple[Path, Path]]) -> Path:
    return exported("llama3")[1] / "llm.gguf"


def test_where_weights_lie(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prompt_weights_cost, "POSITIONS", 64)
    head, *rows = printed(prompt_weights_cost, [str(model_path)], monkeypatch, capsys)
    assert len(head) == 5
    disk = {row[0]: float(row[-1]) for row in rows}
    assert disk["packed in memory"] == disk["made again for each prompt"] == 0
    assert disk["file of int8, packed at each product"] == 1
    assert disk["file with what onnxruntime packed"] >= 1


def test_the_others(model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = printed(
        one_run_gain, [str(model_path), "--rounds", "1", "--threads", "1", "--picture", "70"], monkeypatch, capsys
    )
    assert len(rows) >= 3
    rows = printed(
        prompt_engine_profile, ["--gguf", str(model_path), "--positions", "70", "--runs", "1"], monkeypatch, capsys
    )
    assert {"feed-forward", "all"} <= {row[0] for row in rows}
    monkeypatch.setattr(sys, "argv", ["command", str(model_path), "--positions", "70", "--threads", "1", "--busy"])
    flash_handover.main()
    assert "handover" in capsys.readouterr().out
