"""Settings, completion, history and visible text: the parts of the chat that need no model."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from llava_edge.cli.chat.completion import completions
from llava_edge.cli.chat.history import History, history_file
from llava_edge.cli.chat.lines import _set_up
from llava_edge.cli.chat.settings import changed
from llava_edge.cli.chat.slash import COMMANDS, help_text, unknown
from llava_edge.cli.chat.words import split_words
from llava_edge.cli.terminal.visible import printable, visible
from llava_edge.runtime.errors import OptionError
from llava_edge.runtime.options import GenerationOptions, declared
from support.command_line import run_here


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("temperature 0.5", "temperature", 0.5),
        ("temperature 1", "temperature", 1.0),
        ("max-tokens 7", "max_tokens", 7),
        ("max_tokens 7", "max_tokens", 7),
        ("--max-tokens 7", "max_tokens", 7),
        ("Top-K 0", "top_k", 0),
        ("seed 3", "seed", 3),
        ("seed none", "seed", None),
        ("temperature default", "temperature", 0.0),
        ('stop END "the end"', "stop", ("END", "the end")),
        ("stop none", "stop", ()),
        ("top_p", "top_p", 0.5),  # shown only
    ],
)
def test_set(line: str, name: str, value: Any) -> None:
    before = GenerationOptions(temperature=0.3, top_p=0.5, seed=9, stop=("x",))
    after, said = changed(before, split_words(line))
    assert getattr(after, name) == value
    assert {**vars(after), name: None} == {**vars(before), name: None}
    assert said.startswith(name.replace("_", "-"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("top-p", "2"),
        ("temperature", "-1"),
        ("temperature", "nan"),
        ("max-tokens", "0"),
        ("seed", "-1"),
        ("top-k", "-2"),
    ],
)
def test_set_says_what_the_command_line_says(option: str, value: str) -> None:
    with pytest.raises(OptionError) as caught:
        changed(GenerationOptions(), [option, value])
    assert str(caught.value) in run_here("chat", f"--{option}={value}")[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["max-tokens", "many"], "max_tokens from 1"),
        (["max-tokens", "2.5"], "a whole number"),
        (["max-tokens", "1e3"], "a whole number for max-tokens; got 1e3; write it in digits"),
        (["top_k", "1e3"], "a whole number for top-k; got 1e3"),
        (["seed", "0.0"], "a whole number for seed; got 0.0"),
        (["max-tokens", "nan"], "a whole number for max-tokens; got nan"),
        (["temperature", "9" * 400], "temperature from 0 to 100"),
        (["temprature", "1"], "did you mean temperature"),
        (["nonsense"], "choose one"),
        (["seed", "1", "2"], "one value"),
        (["stop", ""], "at least one character"),
        (["x" * 5000, "1"], "option among"),
    ],
)
def test_set_refuses(words: list[str], said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        changed(GenerationOptions(), words)
    assert len(str(caught.value)) < 400


def test_set_alone_shows_every_option() -> None:
    said = changed(GenerationOptions(), [])[1]
    assert [line.split()[0].replace("-", "_") for line in said.splitlines()] == list(declared(GenerationOptions))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.png", "a b.JPG", "notes.md", ".hidden.png", "it's.webp"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "album").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/im", ["/image"]),
        ("/s", ["/save", "/set", "/stats", "/system"]),
        ("/image a", [r"/image a\ b.JPG", "/image a.png", "/image album/"]),
        (r"/image a\ ", [r"/image a\ b.JPG"]),
        ("/image 'a ", ["/image 'a b.JPG'"]),
        ('/image "a ', ['/image "a b.JPG"']),
        ("/image a.png a.", ["/image a.png a.png"]),
        ("/image ~/al", ["/image ~/album/"]),
        ("/image it", [r"/image it\'s.webp"]),
        ("/image it's", [r"/image it\'s.webp"]),
        ("/image it's.webp a.", ["/image it's.webp a.png"]),
        ("HOME/it's", [r"HOME/it\'s.webp"]),
        ("/image .h", ["/image .hidden.png"]),
        ("/image no", []),
        ("/save no", ["/save notes.md"]),
        ("/set temp", ["/set temperature "]),
        ("/quit x", []),
        ("HOME/al", ["HOME/album/"]),
        ("'HOME/a ", ["'HOME/a b.JPG'"]),
        ("What is a", []),
        ("/image /no/such/folder/", []),
    ],
)
def test_tab(folder: Path, line: str, expected: list[str]) -> None:
    put = [text.replace("HOME", str(folder)) for text in (line, *expected)]
    assert completions(put[0]) == put[1:]


class Editor(ModuleType):
    """As much of readline as the chat uses, with the completer in hand."""

    def __init__(self) -> None:
        super().__init__("readline")
        self.completer: Callable[[str, int], str | None]

    def set_completer(self, completer: Callable[[str, int], str | None]) -> None:
        self.completer = completer

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("/ima", ["/image "]),
        ("/set temp", ["/set temperature "]),
        ("/image a.", ["/image a.png "]),
        ("/image 'a ", ["/image 'a b.JPG' "]),
        ("/image alb", ["/image album/"]),  # which goes on
        ("/st", ["/stats "]),
        ("/s", ["/save", "/set", "/stats", "/system"]),
        ("/nothing", []),
    ],
)
def test_tab_begins_the_next_word_behind_the_only_one(folder: Path, line: str, offered: list[str]) -> None:
    editor = Editor()
    _set_up(editor, History(None), completions)
    found = [editor.completer(line, state) for state in range(len(offered) + 1)]
    assert found == [*offered, None]


def test_history_keeps_each_entry_once_and_the_latest_last(tmp_path: Path) -> None:
    path = tmp_path / "new" / "history"
    first, second = History(path), History(path)
    for entry in ("a", "two\nlines", " secret", "  ", "a"):
        first.add(entry)
    second.add("b\udcff")
    first.save()
    second.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert History(path).earlier == ["two\nlines", "a", "b\udcff"]
    path.chmod(0o644)
    third = History(path)
    third.add("two\nlines")
    third.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert History(path).earlier == ["a", "b\udcff", "two\nlines"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'junk\n"a"\n3\nnull\n[' + b"[" * 100_000 + b'\n"b"', ["a", "b"]),
        (b"\xff\xfe\x00", []),
        (b"", []),
        (b'"a"\n' * (2**21), []),
    ],
    ids=["lines", "bytes", "empty", "large"],
)
def test_a_history_of_somebody_else_is_read_as_far_as_it_goes(
    tmp_path: Path, content: bytes, expected: list[str]
) -> None:
    (tmp_path / "history").write_bytes(content)
    assert History(tmp_path / "history").earlier == expected


def test_history_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("".join(json.dumps(str(number)) + "\n" for number in range(3000)))
    one = History(path)
    one.add("new")
    one.save()
    assert len(kept := History(path).earlier) == 1000
    assert kept[-1] == "new"


def test_a_place_that_refuses_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "history", tmp_path):
        one = History(path)
        one.add("a")
        one.save()
        assert one.earlier == []


def test_no_home_no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "LLAVA_EDGE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert history_file() is None
    monkeypatch.setenv("LLAVA_EDGE_CACHE", str(tmp_path))
    assert history_file() == tmp_path / "chat-history.jsonl"


@pytest.mark.parametrize(
    ("name", "nearest"), [("/imgae", "/image"), ("/exti", "/exit"), ("/sve", "/save"), ("/QUTI", "/quit")]
)
def test_an_unknown_command_names_the_nearest(name: str, nearest: str) -> None:
    assert f"did you mean {nearest}?" in str(unknown(name))
    assert "did you mean" not in str(unknown("/zzzz"))


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_help_has_every_command_in_whole_words(columns: int) -> None:
    lines = help_text(columns).splitlines()
    assert all(any(name in line for line in lines) for each in COMMANDS for name in each.names)
    words = [word for each in COMMANDS for word in each.help.split()]
    assert set(words) <= {word for line in lines for word in line.split()}
    if columns >= 40:
        assert max(map(len, lines)) < columns


def test_help_stands_beside_its_command_where_there_is_room() -> None:
    lines = help_text(80).splitlines()
    assert [line.split()[0].rstrip(",") for line in lines[:-1] if line[0] == "/"] == [each.name for each in COMMANDS]
    column = lines[0].index(COMMANDS[0].help[:10])
    assert all(line[column - 1] == " " != line[column] for line in lines[:-2])
    assert all(each.help in help_text(200) for each in COMMANDS)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name.png", "plain name.png"),
        ("two  spaces", "two  spaces"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("a\x9bb\x7f", r"a\x9bb\x7f"),
        ("a\u202egnp", r"a\u202egnp"),
        ("a\u2028b", r"a\u2028b"),
        ("caf\udce9", r"caf\xe9"),
        ("\ud800", r"\ud800"),
        ("naïve 日本 \U0001f469\u200d\U0001f52c", "naïve 日本 \U0001f469\u200d\U0001f52c"),
    ],
)
def test_foreign_text_is_visible(text: str, shown: str) -> None:
    assert visible(text) == shown
    shown.encode("utf-8")
    assert printable("a\n\tb\x1b") == "a\n\tb\\x1b"


def test_the_page_lists_the_commands() -> None:
    page = (Path(__file__).parents[3] / "docs" / "chat.md").read_text()
    for each in COMMANDS:
        first = f"{each.name} {each.argument}".rstrip()
        names = ", ".join([f"`{first}`", *(f"`{name}`" for name in each.names[1:])])
        assert f"| {names} | {each.help} |" in page
