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
from llava_edge.runtime.pictures.picture import load_picture
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
    (folder / "q.txt").write_bytes(b"\xef\xbb\xbfWhat\nis \xc3\xa4?\n")
    assert pictures_and_question(["sign.png"], "q.txt") == (["sign.png"], "What\nis \xe4?")
    assert pictures_and_question([], "q.txt") == ([], "What\nis \xe4?")
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_question_in_every_encoding_that_says_so(encoding: str, folder: Path) -> None:
    (folder / "q.txt").write_text("Was heißt 日本?\n", encoding=encoding)
    assert pictures_and_question([], "q.txt") == ([], "Was heißt 日本?")


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (b"What is \xff?", "byte 0xff at 8"),
        ("Schöne Grüße?".encode("latin-1"), "byte 0xf6 at 3"),
        ("What?".encode("utf-16-le"), "a zero byte at 1, as in UTF-16 without its mark"),
        ("What?".encode("utf-16-be"), "a zero byte at 0, as in UTF-16 without its mark"),
        (b"\xff\xfeW", "byte 0x57 at 2"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG picture"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "a JPEG picture"),
        (b"PK\3\4\x14\0\6\0", "a ZIP archive (or an Office document)"),
        (b"GGUF\3\0\0\0", "a GGUF model"),
        (b"What\0is", "a zero byte at 4, as in UTF-16 without its mark"),
    ],
)
@pytest.mark.parametrize("place", ["q.txt", "-"])
def test_a_question_that_is_no_text_is_refused(
    data: bytes, got: str, place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "q.txt").write_bytes(data)
    monkeypatch.setattr(module.sys, "stdin", Input(data))
    with pytest.raises(OptionError, match="a question as UTF-8 text") as caught:
        pictures_and_question(["sign.png"], place)
    assert caught.value.got == got


@pytest.mark.parametrize("word", ["What?", "What is it?", "nothing", "Is it and/or?"])
def test_a_question_given_twice(word: str, folder: Path) -> None:
    (folder / "q.txt").write_text("What?")
    with pytest.raises(OptionError, match=r"expected one question; got '.*', which is no picture, and --question-file"):
        pictures_and_question(["sign.png", word], "q.txt")


def test_home_in_the_path_of_a_picture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert pictures_and_question(["~/sign.png", "~ or -?"], None) == ([f"{folder}/sign.png"], "~ or -?")
    with pytest.raises(ImageError, match=r"none\.png; got no such file"):
        pictures_and_question(["~/none.png", "What?"], None)
    Path("~").mkdir()
    Path("~/sign.png").touch()
    assert pictures_and_question(["~/sign.png", "What?"], None)[0] == ["~/sign.png"]


def test_nothing_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "stdin", Input(b""))
    with pytest.raises(ImageError, match="a picture on standard input for -; got nothing"):
        pictures_and_question(["-", "What?"], None)
    monkeypatch.setattr(module.sys, "stdin", Input(b"no picture"))
    (piped,), _ = pictures_and_question(["-", "What?"], None)
    with pytest.raises(ImageError, match="picture in standard input; got a file that begins"):
        load_picture(piped)


@pytest.mark.parametrize("order", ["none", "first"])
def test_the_line_that_was_meant_is_short(order: str) -> None:
    names = [f"a/folder/of/pictures/photo{number}.png" for number in range(300)]
    with pytest.raises(OptionError) as caught:
        pictures_and_question(["What is this?", *names] if order == "first" else names, None)
    assert len(caught.value.fix) < 300
    assert "…" in caught.value.fix
    with pytest.raises(OptionError) as caught:
        pictures_and_question(["x" * 2000 + ".png"], None)
    assert len(caught.value.fix) < 300


def test_bytes_of_the_command_line_become_text() -> None:
    assert pictures_and_question([os.fsdecode("Ça va?".encode("latin-1"))], None) == ([], "\ufffda va?")
