"""``chat --name``: a conversation goes on under its name, with its pictures wherever they are now."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llava_edge.cli import main
from llava_edge.cli.chat import named
from llava_edge.cli.chat.lines import Entry
from llava_edge.cli.chat.named import NamedConversation
from llava_edge.cli.chat.session import Session
from llava_edge.runtime.errors import BusyError, ImageError, OptionError
from llava_edge.runtime.model import load
from llava_edge.runtime.options import GenerationOptions

SIGN = Path(__file__).parents[3] / "examples" / "sign.png"
QUESTION = "What does the sign say?"
Chat = Callable[..., tuple[int, str, str]]


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Chat:
    """Run a chat behind a pipe, in a folder with the picture ``sign.png``."""
    monkeypatch.setenv("LLAVA_EDGE_CACHE", str(tmp_path / "user"))
    (tmp_path / "here").mkdir()
    shutil.copy(SIGN, tmp_path / "here" / "sign.png")
    monkeypatch.chdir(tmp_path / "here")

    def run(*words: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
        status = main.run(["chat", *words, "--max-tokens", "8"])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def kept(tmp_path: Path, name: str = "trip") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "user" / "conversations" / f"{name}.json").read_text())
    return found


def expected() -> list[str]:
    """The answers of one conversation with the library."""
    with load() as model:
        talk = model.chat()
        first = talk.generate(QUESTION, images=[str(SIGN)], max_tokens=8)
        return [first.text, talk.generate("And again?", max_tokens=8).text]


def test_it_goes_on_as_if_it_had_not_ended(chat: Chat, tmp_path: Path) -> None:
    first, second = expected()
    status, out, _ = chat("sign.png", "--name", "trip", typed=f"{QUESTION}\n")
    assert (status, out.strip()) == (0, first)
    status, out, said = chat("--name", "trip", typed="And again?\n")
    assert (status, out.strip()) == (0, second)
    assert "going on after 1 question about 1 picture" in said
    assert [(turn["role"], turn["text"]) for turn in kept(tmp_path)["turns"]] == [
        ("user", QUESTION),
        ("assistant", first),
        ("user", "And again?"),
        ("assistant", second),
    ]
    assert chat("--name", "other", typed="Hello?\n")[2].count("going on") == 0
    files = list((tmp_path / "user" / "conversations").iterdir())
    assert {path.suffix for path in files} == {".json", ".lock"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_undone_and_cleared_is_gone(chat: Chat, tmp_path: Path) -> None:
    chat("sign.png", "--name", "trip", typed=f"{QUESTION}\nAnd again?\n/undo\n")
    assert len(kept(tmp_path)["turns"]) == 2
    chat("--name", "trip", typed="/clear\n")
    assert kept(tmp_path)["turns"] == []


def move(folder: Path, how: str) -> list[str]:
    """Move the picture; return what a person then types on the command line."""
    source = folder / "here" / "sign.png"
    if how == "renamed":
        source.rename(folder / "here" / "renamed.png")
    elif how == "into a folder":
        (folder / "here" / "2026").mkdir()
        source.rename(folder / "here" / "2026" / "sign.png")
    elif how == "replaced":
        source.rename(folder / "here" / "old sign.png")
        source.write_bytes(b"x" * (folder / "here" / "old sign.png").stat().st_size)
    elif how == "away and named":
        source.rename(folder / "away.png")
        return [str(folder / "away.png")]
    elif how == "from elsewhere":
        os.chdir(folder)
    return []


@pytest.mark.parametrize("how", ["renamed", "into a folder", "replaced", "away and named", "from elsewhere"])
def test_a_picture_is_found_by_its_content(how: str, chat: Chat, tmp_path: Path) -> None:
    second = expected()[1]
    chat("sign.png", "--name", "trip", typed=f"{QUESTION}\n")
    given = move(tmp_path, how)
    status, out, _ = chat(*given, "--name", "trip", typed="And again?\n")
    assert (status, out.strip()) == (0, second)
    assert len(kept(tmp_path)["turns"][2]["pictures"]) == 0  # found again, not given a second time


@pytest.mark.parametrize("content", ["gone", "changed"])
def test_a_picture_that_is_nowhere_is_said_by_name(content: str, chat: Chat, tmp_path: Path) -> None:
    chat("sign.png", "--name", "trip", typed=f"{QUESTION}\n")
    before = kept(tmp_path)
    if content == "gone":
        (tmp_path / "here" / "sign.png").unlink()
    else:
        (tmp_path / "here" / "sign.png").write_bytes(SIGN.read_bytes()[:-1] + b"\0")
    status, out, said = chat("--name", "trip", typed="And again?\n")
    assert (status, out) == (1, "")
    assert "sign.png" in said.splitlines()[-1]
    assert kept(tmp_path) == before


def test_a_picture_without_a_file_is_kept_itself(chat: Chat, tmp_path: Path) -> None:
    address = "data:image/png;base64," + base64.b64encode(SIGN.read_bytes()).decode()
    first, second = expected()
    status, out, _ = chat("--name", "trip", typed=f"/image {address}\n{QUESTION}\n")
    assert (status, out.strip()) == (0, first)
    status, out, _ = chat("--name", "trip", typed="And again?\n")
    assert (status, out.strip()) == (0, second)


def test_what_could_not_be_read_again_is_not_kept(chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat("--name", "trip", typed="Hello?\n")
    before = kept(tmp_path)
    monkeypatch.setattr(named, "LARGEST", 500)
    status, _, said = chat("--name", "trip", typed="And " + "again " * 60 + "?\n")
    assert status == 0
    assert "at most 500 bytes" in said.splitlines()[-1]
    assert kept(tmp_path) == before


def test_a_picture_that_is_nowhere_is_asked_for(
    chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a terminal: a wrong file is asked for again, an empty line leaves, the right one goes on."""
    chat("sign.png", "--name", "trip", typed=f"{QUESTION}\n")
    (tmp_path / "here" / "sign.png").rename(moved := tmp_path / "new place.png")
    (tmp_path / "wrong.png").write_bytes(b"x")
    conversation = NamedConversation(tmp_path / "user", "trip")
    asked: list[str] = []

    def typing(*words: str) -> Any:
        left = [Entry(word) for word in words]

        class Typed:
            interactive = True

            def read(self) -> Entry | None:
                asked.append(capsys.readouterr().err)
                return left.pop(0) if left else None

        return Typed()

    with load() as model:
        session = Session(model, None, GenerationOptions(), conversation)
        for words in ((str(tmp_path / "wrong.png"), ""), (str(tmp_path / "wrong.png"),)):
            with pytest.raises(ImageError, match=r"sign\.png"):
                session.resume(typing(*words), [])
        assert len(asked) == 4
        assert [f"{tmp_path / 'wrong.png'} has another content" in one for one in asked] == [False, True] * 2
        assert all("where is sign.png now?" in one for one in asked)
        assert session.resume(typing("*.tiff", "'open", f"'{moved}'"), []) == []
        assert "'open has another content, or is not there" in asked[-1]
        assert [len(turn.images) for turn in session.conversation.turns] == [1, 0]
    conversation.close()


@pytest.mark.parametrize("name", ["../x", "/x", "", ".x", "a/b", "x" * 101, "x\n", "a\\b", "x "])
def test_names_are_no_paths(name: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--name"):
        NamedConversation(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_one_chat_at_a_time(tmp_path: Path) -> None:
    one = NamedConversation(tmp_path, "trip")
    with pytest.raises(BusyError, match="another chat"):
        NamedConversation(tmp_path, "trip")
    one.close()
    NamedConversation(tmp_path, "trip").close()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 2, "model": "", "turns": []}', '{"schema": 1, "turns": 3}', "[" * 100_000]
)
def test_a_damaged_file_is_one_line_and_stays(text: str, chat: Chat, tmp_path: Path) -> None:
    path = tmp_path / "user" / "conversations" / "trip.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    status, _, said = chat("--name", "trip", typed="Hello?\n")
    assert status == 1
    assert str(path) in said.splitlines()[-1]
    assert path.read_text() == text


def test_a_name_and_no_cache_contradict_each_other(chat: Chat, tmp_path: Path) -> None:
    status, out, said = chat("--name", "trip", "--no-cache", "--cache", str(tmp_path / "own"), typed="Hello?\n")
    assert (status, out) == (2, "")
    assert "--name" in said
    assert "--no-cache" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]


def test_a_name_that_is_typed_beats_a_configured_no_cache(
    chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAVA_EDGE_CONFIG", str(tmp_path / "here" / "llava-edge.toml"))
    (tmp_path / "here" / "llava-edge.toml").write_text("[chat]\nno_cache = true\n")
    status, _, said = chat("--name", "trip", "--cache", str(tmp_path / "own"), typed="Hello?\n")
    assert status == 0
    assert (tmp_path / "own" / "conversations" / "trip.json").is_file()
    status, _, said = chat("--name", "trip", typed="Hello?\n")
    assert (status, "kept as trip all the same" in said) == (0, True)
    assert len(kept(tmp_path)["turns"]) == 2
    assert sorted(path.name for path in (tmp_path / "user").iterdir()) == ["conversations"]


def test_a_typed_no_cache_beats_a_configured_name(chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_EDGE_CONFIG", str(tmp_path / "here" / "llava-edge.toml"))
    (tmp_path / "here" / "llava-edge.toml").write_text('[chat]\nname = "trip"\n')
    assert chat("--no-cache", typed="Hello?\n")[0] == 0
    assert not (tmp_path / "user").exists()


def test_a_chat_without_a_word_leaves_nothing(chat: Chat, tmp_path: Path) -> None:
    assert chat("--name", "trip", typed="")[0] == 0
    assert list((tmp_path / "user" / "conversations").iterdir()) == []


@pytest.mark.parametrize("typed", ["/image sign.png\n", "/image sign.png\n/quit\n", f"./sign.png {QUESTION}\n/undo\n"])
def test_a_picture_that_waits_is_said_not_to_be_kept(typed: str, chat: Chat) -> None:
    _, _, said = chat("--name", "trip", typed=typed)
    assert "not kept in trip" in said.splitlines()[-1]
    assert "sign.png" in said.splitlines()[-1]


def test_a_picture_keeps_the_positions_it_was_added_with(chat: Chat, tmp_path: Path) -> None:
    """Also one that lost them while it waited; a whole one stays whole, as all of older files are."""
    chat("sign.png", "--name", "trip", "--picture-tokens", "25%", typed=f"{QUESTION}\n")
    chat("sign.png", "--name", "late", typed=f"/set picture-tokens 20\n{QUESTION}\n")
    chat("sign.png", "--name", "whole", typed=f"{QUESTION}\n")
    for name, positions in (("trip", 39), ("late", 20), ("whole", None)):
        before = kept(tmp_path, name)["turns"]
        (picture,) = before[0]["pictures"]
        assert picture.get("picture_tokens") == positions
        assert picture["sha256"]
        status, _, _ = chat("--name", name, "--picture-tokens", "5", typed="And again?\n")
        assert status == 0
        assert kept(tmp_path, name)["turns"][:2] == before
