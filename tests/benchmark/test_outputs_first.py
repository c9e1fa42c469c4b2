"""What a benchmark will write is looked at before anything is loaded: the measuring itself would fail here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from llava_edge.benchmark.accuracy import run as accuracy_run
from llava_edge.benchmark.accuracy.report import left_out
from llava_edge.benchmark.speed import contest
from support.command_line import run_here
from support.published_data import png


def measured(*_: Any, **__: Any) -> None:
    raise AssertionError("measured before its outputs were looked at")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAVA_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(accuracy_run, "compare_bundles", measured)
    monkeypatch.setattr(contest, "compete", measured)
    monkeypatch.setattr(contest, "prepare_projector", measured)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder" / "accuracy.png").mkdir(parents=True)
    (tmp_path / "folder" / "speed.md").mkdir()
    return tmp_path


ACCURACY = ["benchmark", "accuracy", "--reference", "a", "--candidate", "b"]
SPEED = ["benchmark", "speed", "--no-roofline"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*ACCURACY, "--out", "file"], "a folder for --out; got the file file"),
        ([*ACCURACY, "--out", "folder"], "a file for --out; got the folder"),
        ([*ACCURACY, "--out", "file/below"], "a folder for --out"),
        ([*ACCURACY, "--json", "folder"], "a file for --json; got the folder folder"),
        ([*ACCURACY, "--json", "file/below.json"], "a folder for --json"),
        ([*ACCURACY, "--cache", "file"], "a folder for --cache; got the file file"),
        ([*SPEED, "--out", "file"], "a folder for --out; got the file file"),
        ([*SPEED, "--out", "folder"], "a file for --out; got the folder"),
        ([*SPEED, "--json", "folder"], "a file for --json; got the folder folder"),
        ([*SPEED, "--json", "none/below.json"], "a folder for --json"),
    ],
)
def test_outputs_are_looked_at_first(place: Path, arguments: list[str], said: str) -> None:
    status, out, err = run_here(*arguments)
    assert status != 0
    assert out == "" or "--json" in arguments  # with it the error is an object there too
    assert said in err
    assert len(err.splitlines()) == 1
    assert (place / "file").read_text() == "mine"


@pytest.mark.parametrize("command", [ACCURACY, SPEED])
def test_a_missing_plotter_is_said_first(place: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = run_here(*command, "--out", "new")
    assert status == 1
    assert "llava-edge[benchmark]" in err


def test_left_out_records_are_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr at once; the report and its JSON have them too."""
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red"}]
    records = [
        {"id": str(at), "image": "a.png" if at else "none\x1b[31m.png", "conversations": turns} for at in range(3)
    ]
    (place / "data").mkdir()
    (place / "data" / "a.png").write_bytes(png(1))
    (place / "data" / "questions.json").write_text(json.dumps(records))
    asked: list[Any] = []

    def stop(_reference: Path, _candidates: Any, questions: Any, **_: Any) -> None:
        asked.append(questions)
        raise KeyboardInterrupt

    monkeypatch.setattr(accuracy_run, "compare_bundles", stop)
    status, _, err = run_here(*ACCURACY, "--data", "data")
    assert status == 130
    assert "1 record of the data set was left out: " in err
    assert "record 0 ('0')" in err
    assert "\x1b" not in err
    assert [one.id for one in asked[0]] == ["1", "2"]
    assert len(asked[0].left_out) == 1


def test_many_left_out_records_are_counted() -> None:
    assert left_out([]) == []
    (line,) = left_out([f"row {at}" for at in range(9)])
    assert line == "9 records of the data set were left out: row 0 | row 1 | row 2, and 6 more."
