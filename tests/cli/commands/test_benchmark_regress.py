"""``benchmark regress`` and ``benchmark scores`` as a person meets them: outputs, inputs that stay, exit status."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from support.command_line import run_here

EXAMPLE = Path(__file__).parents[3] / "examples" / "regress" / "llava-next.csv"
REPORT = {
    "reference": {"name": "f16"},
    "candidates": [
        {"name": f"q{at}", "vision": "int8", "llm": "q8_0", "kl_mean": 0.5**at, "text": {"kl_mean": 0.25**at}}
        for at in range(1, 6)
    ],
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE, "s.csv")
    Path("a.json").write_text(json.dumps(REPORT))
    return tmp_path


def test_a_figure_and_a_table(place: Path) -> None:
    status, out, err = run_here("benchmark", "regress", "s.csv", "-o", "new/f.png")
    assert (status, err) == (0, "")
    assert "MMMU" in out
    assert "0.541 (" in out
    assert (place / "new" / "f.png").read_bytes().startswith(b"\x89PNG")


def test_json_is_a_list_and_the_same_every_time(place: Path) -> None:
    arguments = ("benchmark", "regress", "s.csv", "-o", "f.png", "--json")
    status, out, err = run_here(*arguments)
    assert (status, err) == (0, "")
    assert [one["benchmark"] for one in json.loads(out)] == ["MMMU", "MathVista", "AI2D", "LLaVA-W"]
    assert run_here(*arguments) == (status, out, err)


def test_from_reports_to_a_figure(place: Path) -> None:
    """KL falls four times as fast without the pictures as with them twice: half the exponent."""
    status, out, err = run_here("benchmark", "scores", "a.json", "-o", "t.csv")
    assert (status, err) == (0, "")
    assert out == (place / "t.csv").read_text()
    status, out, _ = run_here("benchmark", "regress", "t.csv", "-o", "f.png", "--log", "--json")
    assert status == 0
    (found,) = json.loads(out)
    assert (found["n"], found["slope"]) == (5, pytest.approx(0.5))


@pytest.mark.parametrize("kind", ["itself", "link", "hard link", "other spelling"])
@pytest.mark.parametrize("command", ["regress", "scores"])
def test_an_output_over_an_input_is_refused(command: str, kind: str, place: Path) -> None:
    source = place / {"regress": "s.png", "scores": "a.json"}[command]
    if command == "regress":
        (place / "s.csv").rename(source)
    before = source.read_bytes()
    target = {
        "itself": source.name,
        "link": "l.png",
        "hard link": "h.png",
        "other spelling": f"../{place.name}/./{source.name}",
    }[kind]
    if kind == "link":
        os.symlink(source, "l.png")
    if kind == "hard link":
        os.link(source, "h.png")
    status, out, err = run_here("benchmark", command, source.name, "-o", target)
    assert (status, out) == (2, "")
    assert "another file for --output" in err
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["regress", "none.csv", "-o", "f.png"], 1, "a table of scores at none.csv; got No such file"),
        (["regress", "a.json", "-o", "f.png"], 1, "a column 'model' in a.json"),
        (["regress", "s.csv", "-o", "f.jpg"], 2, "a PNG for --output"),
        (["regress", "s.csv", "-o", "."], 2, "a file for --output"),
        (["regress", "s.csv", "-o", "s.csv/f.png"], 2, "a folder for --output"),
        (["regress", "s.csv", "-o", "f.png", "--x", "GPT"], 2, "a column of s.csv for --x"),
        (["regress", "s.csv"], 2, "Missing option"),
        (["scores", "-o", "t.csv"], 2, "Missing argument"),
        (["scores", "s.csv", "-o", "t.csv"], 1, "what 'llava-edge benchmark accuracy --json' printed in s.csv"),
        (["scores", "a.json", "-o", "t.csv", "--score", "speed"], 2, "kl or accuracy"),
        (["scores", "a.json", "-o", "t.csv", "--score", "accuracy"], 1, "accuracy of q1 with and without"),
    ],
)
def test_what_is_refused_in_one_line(arguments: list[str], status: int, said: str, place: Path) -> None:
    found, out, err = run_here("benchmark", *arguments)
    assert (found, out) == (status, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert sorted(one.name for one in place.iterdir()) == ["a.json", "s.csv"]


def test_a_missing_plotter_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = run_here("benchmark", "regress", "s.csv", "-o", "f.png")
    assert status == 1
    assert "llava-edge[benchmark]" in err


def test_a_table_through_a_pipe(place: Path) -> None:
    read, write = os.pipe()
    os.write(write, (place / "s.csv").read_bytes())
    os.close(write)
    status, out, _ = run_here("benchmark", "regress", f"/dev/fd/{read}", "-o", "f.png")
    os.close(read)
    assert (status, "MMMU" in out) == (0, True)
