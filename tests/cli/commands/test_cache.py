"""``--cache`` and ``--no-cache`` of the commands, and ``llava-edge cache``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from llava_edge.cli import main
from llava_edge.cli.terminal.options import with_cache
from llava_edge.runtime.options import LoadOptions

ROOT = Path(__file__).parents[3]
SIGN = str(ROOT / "examples" / "sign.png")
ASK = ["ask", SIGN, "What does the sign say?", "--cache-min-positions", "16", "--cache-min-free-disk", "0"]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command here with a user's cache of its own: (status, stdout, stderr)."""
    monkeypatch.setenv("LLAVA_EDGE_CACHE", str(tmp_path / "user"))

    def run(*words: str) -> tuple[int, str, str]:
        status = main.run(words)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def shown(command: Any, *more: str) -> dict[str, Any]:
    status, out, _ = command("cache", "show", "--json", *more)
    assert status == 0
    found: dict[str, Any] = json.loads(out)
    return found


def test_ask_remembers_and_says_where_once(command: Any, tmp_path: Path) -> None:
    status, first, said = command(*ASK)
    assert status == 0
    (line,) = said.splitlines()
    assert f"{tmp_path / 'user'} (--no-cache" in line
    status, second, again = command(*ASK)
    assert (status, second) == (0, first)
    (line,) = again.splitlines()
    assert str(tmp_path) not in line
    assert "182 cached" in line
    found = shown(command)
    assert list(found) == ["folder", "pictures", "states", "limit_bytes", "named", "history_bytes"]
    assert found["folder"] == str(tmp_path / "user")
    assert found["limit_bytes"] == 5 * 2**30
    files = {kind: list((tmp_path / "user" / "v1" / kind).glob("[!.]*")) for kind in ("pictures", "states")}
    for kind, paths in files.items():
        assert found[kind] == {"count": 1, "bytes": sum(path.stat().st_size for path in paths)}


def test_another_folder_and_none(command: Any, tmp_path: Path) -> None:
    assert command(*ASK, "--cache", str(tmp_path / "other"), "-q")[0] == 0
    assert command(*ASK, "--no-cache")[0] == 0
    assert command(*ASK, "--cache", str(tmp_path / "no"), "--no-cache")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert shown(command, "--cache", str(tmp_path / "other"))["pictures"]["count"] == 1
    assert shown(command)["pictures"]["count"] == 0


def test_quiet_is_quiet(command: Any) -> None:
    assert command(*ASK, "-q")[2] == ""


@pytest.mark.parametrize(
    ("lines", "words", "expected"),
    [
        ("", [], "user"),
        ("no_cache = true", [], None),
        ("[ask]\nno_cache = true", [], None),
        ("no_cache = true", ["--cache", "typed"], "typed"),
        ("cache = 'set'", [], "set"),
        ("cache = 'set'", ["--no-cache"], None),
        ("cache = 'set'\nno_cache = true", [], None),
        ("cache = 'set'", ["--cache", "typed"], "typed"),
    ],
)
def test_the_command_line_is_over_the_configuration(
    lines: str, words: list[str], expected: str | None, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llava-edge.toml").write_text(lines)
    monkeypatch.setenv("LLAVA_EDGE_CONFIG", str(tmp_path / "llava-edge.toml"))
    monkeypatch.chdir(tmp_path)
    assert command(*ASK, *words)[0] == 0
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == ({expected} if expected else set())


def test_the_environment_switches_it_off(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_EDGE_NO_CACHE", "1")
    assert command(*ASK)[0] == 0
    assert not (tmp_path / "user").exists()


def test_commands_have_it_on_and_python_off() -> None:
    assert with_cache(LoadOptions(), False).cache is True
    assert with_cache(LoadOptions(cache="here"), False).cache == "here"
    assert with_cache(LoadOptions(cache="here"), True).cache is None
    assert LoadOptions().cache is None


def test_verify_and_clear(command: Any, tmp_path: Path) -> None:
    assert command("cache", "verify")[:2] == (0, "0 entries have their sizes and hashes\n")
    assert command("cache", "clear")[:2] == (0, "nothing is kept\n")
    command(*ASK)
    assert command("cache", "verify")[:2] == (0, "2 entries have their sizes and hashes\n")
    (path,) = (tmp_path / "user" / "v1" / "states").glob("*.kv")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    status, out, said = command("cache", "verify")
    assert status == 1
    assert str(path) in out
    (line,) = said.splitlines()
    assert path.name in line
    assert "1 bad" in line
    status, out, _ = command("cache", "clear")
    assert (status, out.split(",")[0]) == (0, "2 entries removed")
    assert shown(command)["states"]["count"] == 0


def test_what_clearing_leaves_is_counted_and_said(command: Any, tmp_path: Path) -> None:
    (tmp_path / "user" / "conversations").mkdir(parents=True)
    for name in ("trip.json", "trip.lock", "other.json"):
        (tmp_path / "user" / "conversations" / name).write_text("{}")
    (tmp_path / "user" / "chat-history.jsonl").write_text('"Hello?"\n')
    found = shown(command)
    assert (found["named"], found["history_bytes"]) == ({"count": 2, "bytes": 4}, 9)
    out = command("cache", "show")[1]
    assert any(line.split()[:3] == ["named", "chats", "2"] for line in out.splitlines())
    for words in (["cache", "clear"], ["cache", "clear"]):
        out = command(*words)[1]
        assert f"2 chats with a name stay in {tmp_path / 'user' / 'conversations'}" in out
        assert str(tmp_path / "user" / "chat-history.jsonl") in out
        command(*ASK)
    assert shown(command)["named"]["count"] == 2


def test_a_folder_that_cannot_be_used(command: Any, tmp_path: Path) -> None:
    (tmp_path / "user").write_text("no folder")
    status, _, said = command(*ASK)
    assert status == 0
    assert "nothing is kept for later runs: " in said
    for name in ("verify", "clear"):
        status, _, said = command("cache", name)
        assert status == 1
        assert len(said.splitlines()) == 1
    assert shown(command)["pictures"]["count"] == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc takes no folders")
def test_a_named_folder_that_cannot_be_made_is_said_in_one_line(command: Any) -> None:
    status, out, said = command(*ASK, "--cache", "/proc/nowhere")
    assert (status, bool(out.strip())) == (0, True)
    (line,) = [line for line in said.splitlines() if "kept" in line]
    assert line == "nothing is kept for later runs in /proc/nowhere: No such file or directory"
    assert command(*ASK, "--cache", "/proc/nowhere", "--quiet")[2] == ""


@pytest.mark.parametrize("name", ["--answers", "--cache"])
def test_benchmark_accuracy_keeps_answers_elsewhere(name: str, command: Any, tmp_path: Path) -> None:
    """The old name of its option still works; a wrong place is told by the name that was given."""
    (tmp_path / "file").write_text("")
    words = ["benchmark", "accuracy", "--reference", "a", "--candidate", "b", name, str(tmp_path / "file")]
    status, _, said = command(*words)
    assert status == 2
    assert f"a folder for {name}" in said
    status, out, _ = command("benchmark", "accuracy", "--help")
    assert "--answers" in out
    assert "--cache" not in out
