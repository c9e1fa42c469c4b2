"""Options of ``llava-edge benchmark`` that are refused or taken once, before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llava_edge.benchmark.accuracy import run
from llava_edge.runtime.bundle.bundle import demo_bundle
from support.command_line import run_here


def test_picture_tokens_that_come_twice_are_one_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def compare_bundles(*_: object, **given: Any) -> None:
        asked.update(given)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "compare_bundles", compare_bundles)
    shares = [word for one in ("25%", "9", "25.0%", "9") for word in ("--picture-tokens", one)]
    words = ["--reference", str(demo_bundle()), "--candidate", str(demo_bundle()), "--data", "demo", "--limit", "1"]
    status, _, _ = run_here("benchmark", "accuracy", *words, "--answers", str(tmp_path / "kept"), *shares)
    assert (status, asked["picture_tokens"]) == (130, ["25%", 9])


def test_busy_processes_have_a_bound() -> None:
    status, _, err = run_here("benchmark", "speed", "--beside", "65")
    assert status == 2
    assert "--beside" in err
    assert "64" in err
