"""Words of a line against Python's own shlex, and the files that a line means."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llava_edge.cli.chat.words import as_path, dropped_paths, quoted, split_words, typed_paths
from llava_edge.runtime.errors import OptionError


@given(st.text("ab '\"\\/$~\n"))
def test_words_are_those_of_a_shell(line: str) -> None:
    """shlex refuses a backslash at the very end, which stays here: a path of Windows may end so."""
    try:
        expected = shlex.split(line)
    except ValueError as error:
        if "escaped" in str(error):
            return
        with pytest.raises(OptionError):
            split_words(line)
    else:
        if "$" not in line:  # the one that shlex escapes in quotes differently from a shell
            assert split_words(line) == expected


@given(st.text("ab '\"\\/$~*?[]()&;|<>#!{}`é").filter(str.strip))
def test_what_is_quoted_is_one_word(path: str) -> None:
    assert split_words(quoted(path)) == [path]
    assert split_words('"' + quoted(path, '"') + '"') == [path]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("x.png", "y.png", "My Photo.png", "it's.png", "100%.png", "naïve.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "z.jpg").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x.png", ["x.png"]),
        ('"x.png"', ["x.png"]),
        ("~/x.png", ["HOME/x.png"]),
        ("$HOME/x.png", ["HOME/x.png"]),
        ("${HOME}/x.png", ["HOME/x.png"]),
        ("'HOME/My Photo.png'", ["HOME/My Photo.png"]),
        ('"HOME/My Photo.png"', ["HOME/My Photo.png"]),
        (r"HOME/My\ Photo.png", ["HOME/My Photo.png"]),
        (r"~/My\ Photo.png", ["HOME/My Photo.png"]),
        ("HOME/My Photo.png", ["HOME/My Photo.png"]),  # a whole path needs no quotes
        ("My Photo.png  ", ["My Photo.png"]),
        ("it's.png", ["it's.png"]),
        (r"it\'s.png x.png", ["it's.png", "x.png"]),
        ("file://HOME/My%20Photo.png", ["HOME/My Photo.png"]),
        ("file://localhostHOME/100%25.png", ["HOME/100%.png"]),
        ("file:HOME/na%C3%AFve.png", ["HOME/naïve.png"]),
        ("x.png 'My Photo.png' ~/y.png", ["x.png", "My Photo.png", "HOME/y.png"]),
        ("?.png", ["x.png", "y.png"]),
        ("pics/*", ["pics/z.jpg"]),
        ("none*.png", ["none*.png"]),
        ("nothing here.png", ["nothing", "here.png"]),
    ],
)
def test_files_behind_a_command(home: Path, line: str, expected: list[str]) -> None:
    assert typed_paths(line.replace("HOME", str(home)) if "$" not in line else line) == [
        one.replace("HOME", str(home)) for one in expected
    ]


def test_an_open_quote_is_said(home: Path) -> None:
    with pytest.raises(OptionError, match="a second '"):
        typed_paths("'x.png")


@pytest.mark.parametrize(
    ("line", "paths", "question"),
    [
        ("HOME/x.png what is this?", ["HOME/x.png"], "what is this?"),
        ("HOME/x.png", ["HOME/x.png"], ""),
        ("HOME/x.png ", ["HOME/x.png"], ""),
        ("'HOME/My Photo.png' what's this?", ["HOME/My Photo.png"], "what's this?"),
        ('"HOME/My Photo.png" what\'s "this"?', ["HOME/My Photo.png"], 'what\'s "this"?'),
        (r"HOME/My\ Photo.png what's \n?", ["HOME/My Photo.png"], r"what's \n?"),
        ("HOME/My Photo.png what is this?", ["HOME/My Photo.png"], "what is this?"),
        ("HOME/My Photo.png", ["HOME/My Photo.png"], ""),
        ("HOME/x.png HOME/y.png Same?", ["HOME/x.png", "HOME/y.png"], "Same?"),
        ("'HOME/x.png' 'HOME/y.png'\nSame?\nOr not?", ["HOME/x.png", "HOME/y.png"], "Same?\nOr not?"),
        ("HOME/x.png\nHOME/y.png", ["HOME/x.png", "HOME/y.png"], ""),
        ("file://HOME/My%20Photo.png file://HOME/x.png a  b", ["HOME/My Photo.png", "HOME/x.png"], "a  b"),
        ("~/x.png what?", ["HOME/x.png"], "what?"),
        ("./x.png what?", ["./x.png"], "what?"),
        ("HOME/none.png what?", ["HOME/none.png"], "what?"),  # the error about it is better than a question
        ("/data/none.heic", ["/data/none.heic"], ""),
        ("x.png is a file", [], "x.png is a file"),
        ("What is in HOME/x.png?", [], "What is in HOME/x.png?"),
        ("/nonsense a", [], "/nonsense a"),
        ("/ what?", [], "/ what?"),
        ("'quoted' words", [], "'quoted' words"),
        ("'tis the season", [], "'tis the season"),
        ("~", [], "~"),
        ("", [], ""),
    ],
)
def test_dropped_files(home: Path, line: str, paths: list[str], question: str) -> None:
    put = [text.replace("HOME", str(home)) for text in (line, question, *paths)]
    assert dropped_paths(put[0]) == (put[2:], put[1])


@pytest.mark.parametrize(
    "line", ["/" + "a" * 5000 + " b", "/a\0b.png what?", "~nobody-there/x.png", "file://[bad/x.png"]
)
def test_no_line_is_an_accident(line: str) -> None:
    assert isinstance(dropped_paths(line)[0], list)
    assert isinstance(typed_paths(line), list)


def test_undecodable_names_come_back_as_bytes(home: Path) -> None:
    assert as_path("file:///caf%E9.png").encode("utf-8", "surrogateescape") == b"/caf\xe9.png"
