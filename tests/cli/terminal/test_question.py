"""The words of ``ask``: pictures, the question, and the hint that fits where they are neither."""

from __future__ import annotations

import io
import os
import shlex
import tracemalloc
from pathlib import Path

import pytest
from llava_edge.cli.terminal import question as module
from llava_edge.cli.terminal.question import check_pictures, pictures_and_question
from llava_edge.runtime.errors import ImageError, OptionError
from PIL import Image


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with pictures in it."""
    for name in ("sign.png", "my photo.jpg", "photo", "What"):
        Image.new("RGB", (8, 8)).save(tmp_path / name, format="PNG")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["What is this?"],
        ["sign.png", "What is this?"],
        ["sign.png", "What?"],
        ["sign.png", "my photo.jpg", "What is in sign.png?"],
        ["sign.png", "Compare this with other.png"],
        ["photo", "Is it and/or?"],
        ["sign.png", "-5 + 3 = ?"],
        ["sign.png", "folder"],
        ["data:image/png;base64,AAAA", "What?"],
        ["word " * 1000],
        ["sign.png", "Was heißt 日本?"],
        ["sign.png", "a\nb"],
        ["sign.png", "What is 3/4 of it"],
    ],
)
def test_taken(words: list[str]) -> None:
    assert pictures_and_question(words, None) == (words[:-1], words[-1])


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (["sign.png"], "only 'sign.png'", 'ask sign.png "What is this?"'),
        (["nosuch.png"], "only 'nosuch.png'", 'ask nosuch.png "What is this?"'),
        (["sign.png", "b.JPG"], "2 pictures, 'b.JPG' the last", 'ask sign.png b.JPG "What is this?"'),
        (["my photo.jpg"], "only 'my photo.jpg'", "ask 'my photo.jpg' \"What is this?\""),
        (["sign.png", "photo"], "'photo' the last", 'ask sign.png photo "What is this?"'),
        (["/data/none"], "only '/data/none'", 'ask /data/none "What is this?"'),
        (["../none.png"], "only '../none.png'", 'ask ../none.png "What is this?"'),
        (["~/My Photo.heic"], "only '~/My Photo.heic'", "ask '~/My Photo.heic' \"What is this?\""),
        (["C:\\photo"], "only 'C:\\photo'", "ask 'C:\\photo' \"What is this?\""),
        (["folder/"], "only 'folder/'", 'ask folder/ "What is this?"'),
        (["-"], "only '-'", 'ask - "What is this?"'),
        (["https://host/a.png"], "only 'https://host/a.png'", 'ask https://host/a.png "What is this?"'),
        (["What is this?", "sign.png"], "'sign.png' last", 'ask sign.png "What is this?"'),
        (["What?", "sign.png", "b.png"], "'b.png' last", 'ask sign.png b.png "What?"'),
        (["sign.png", "Who", "is", "this"], "'Who', which is no picture", 'ask sign.png "Who is this"'),
        (["Who", "is", "this"], "'Who', which is no picture", 'ask "Who is this"'),
        (["Describe", "it"], "'Describe', which is no picture", 'ask "Describe it"'),
    ],
)
def test_refused_with_the_line_that_was_meant(words: list[str], said: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        pictures_and_question(words, None)
    assert said in caught.value.got
    meant = caught.value.fix.partition("llava-edge ")[2]
    assert shlex.split(meant) == shlex.split(hint, posix=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "a question"),
        (["  "], "an empty one"),
        (["sign.png", "\n"], "an empty one"),
        (["-", "-", "What?"], "- twice"),
    ],
)
def test_no_question(words: list[str], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        pictures_and_question(words, None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.png", "no such file"),
        ("folder", "a directory"),
        ("https://host/a.png", "an address"),
        ("FTP://host/a.png", "an address"),
        ("nothing", "no such file"),
    ],
)
def test_pictures_that_are_not_there_are_said_before_a_load(name: str, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        pictures_and_question([name, "What is this?"], None)


class Input:
    """Standard input that holds bytes."""

    def __init__(self, data: bytes, *, terminal: bool = False) -> None:
        self.buffer, self._terminal = io.BytesIO(data), terminal

    def isatty(self) -> bool:
        return self._terminal


def test_standard_input_is_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "stdin", Input(b"picture"))
    assert pictures_and_question(["sign.png", "-", "What?"], None) == (["sign.png", b"picture"], "What?")
    monkeypatch.setattr(module, "MOST_BYTES", 5)
    monkeypatch.setattr(module.sys, "stdin", Input(b"picture"))
    with pytest.raises(ImageError, match="on standard input; got more"):
        pictures_and_question(["-", "What?"], None)
    monkeypatch.setattr(module.sys, "stdin", Input(b"", terminal=True))
    with pytest.raises(OptionError, match="got a terminal"):
        pictures_and_question(["-", "What?"], None)


@pytest.mark.parametrize(("words", "place"), [(["-", "What?"], None), (["a.png"], "-"), (["a.png"], "q.txt")])
def test_reading_takes_the_memory_of_what_is_there(
    folder: Path, words: list[str], place: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "q.txt").write_text("What?")
    (folder / "a.png").write_bytes(b"")
    with (folder / "q.txt").open("r") as file:  # with a buffer, as standard input has one
        monkeypatch.setattr(module.sys, "stdin", file)
        tracemalloc.start()
        try:
            pictures_and_question(words, place)
            assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sign.png", "What does the sign say?"], "ask like this: llava-edge ask sign.png 'What does the sign say?'"),
        (["Who", "is", "this?"], "'Who', which is no file; ask like this: llava-edge ask 'Who is this?'"),
        (["sign.png", "-"], "- standard input|standard input is where"),
        (["none.png"], "no such file"),
        (["https://example.org/a.png"], "begin the chat with that"),
        (["folder"], "a directory"),
    ],
)
def test_what_a_chat_can_not_begin_with(words: list[str], said: str) -> None:
    with pytest.raises((OptionError, ImageError), match=said.replace("?", r"\?")) as caught:
        check_pictures(words)
    assert "\n" not in str(caught.value)


def test_what_a_chat_can_begin_with() -> None:
    check_pictures([])
    check_pictures(["sign.png", "./sign.png"])


def test_a_question_from_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "q.txt").write_bytes(b"\xef\xbb\xbfWhat\nis \xff?\n")
    assert pictures_and_question(["sign.png"], "q.txt") == (["sign.png"], "What\nis \ufffd?")
    assert pictures_and_question([], "q.txt") == ([], "What\nis \ufffd?")
    monkeypatch.setenv("HOME", str(folder))
    assert pictures_and_question([], "~/q.txt")[1].startswith("What")
    monkeypatch.setattr(module.sys, "stdin", Input(b"Wer?"))
    assert pictures_and_question(["sign.png"], "-") == (["sign.png"], "Wer?")
    with pytest.raises(OptionError, match="standard input once"):
        pictures_and_question(["-"], "-")
    for place, said in (
        ("none.txt", "No such file"),
        ("folder", "Is a directory"),
        ("a\0b", "null"),
        ("x" * 300, "long"),
    ):
        with pytest.raises(OptionError, match=said):
            pictures_and_question(["sign.png"], place)
    (folder / "q.txt").write_text(" \n")
    with pytest.raises(OptionError, match="an empty one"):
        pictures_and_question(["sign.png"], "q.txt")


def test_bytes_of_the_command_line_become_text() -> None:
    assert pictures_and_question([os.fsdecode("Ça va?".encode("latin-1"))], None) == ([], "\ufffda va?")
