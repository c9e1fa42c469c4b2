"""Words of a line against Python's own shlex, and the files that a line means."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llava_edge.cli.chat.words import as_path, dropped_paths, file_words, quoted, split_words, typed_paths, web_pictures
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
    for name in ("x.png", "y.png", "My Photo.png", "it's.png", "he's gone.png", "100%.png", "naïve.png"):
        (tmp_path / name).write_bytes(b"")
    for name in ('say"cheese.png', r"back\slash.png"):
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
        ("it's.png x.png", ["it's.png", "x.png"]),
        ("HOME/it's.png HOME/he's gone.png ./x.png", ["HOME/it's.png", "HOME/he's gone.png", "./x.png"]),
        ("~/it's.png", ["HOME/it's.png"]),
        ("file://HOME/it's.png", ["HOME/it's.png"]),
        ("'HOME/it's.png'", ["HOME/it's.png"]),  # quotes put around it by hand
        ('say"cheese.png x.png', ['say"cheese.png', "x.png"]),
        (r"back\slash.png x.png", [r"back\slash.png", "x.png"]),
        ("My Photo.png x.png", ["My Photo.png", "x.png"]),
        ("none's.png x.png", ["none's.png", "x.png"]),
        ("none's.png he's none.png", ["none's.png", "he's", "none.png"]),
    ],
)
def test_files_behind_a_command(home: Path, line: str, expected: list[str]) -> None:
    assert typed_paths(line.replace("HOME", str(home)) if "$" not in line else line) == [
        one.replace("HOME", str(home)) for one in expected
    ]


def test_an_open_quote_is_said(home: Path) -> None:
    with pytest.raises(OptionError, match="a second '"):
        typed_paths("'x.png")
    with pytest.raises(OptionError, match="a second '"):
        file_words("x.md 'y.md")


def test_a_file_that_is_to_be_written_may_have_an_apostrophe(home: Path) -> None:
    assert file_words("--force it's.md") == ["--force", "it's.md"]
    assert file_words("'My talk.md' it\\'s.md") == ["My talk.md", "it's.md"]


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
        ("HOME/it's.png", ["HOME/it's.png"], ""),
        ("HOME/it's.png what's this?", ["HOME/it's.png"], "what's this?"),
        ("HOME/it's.png HOME/he's gone.png Same?", ["HOME/it's.png", "HOME/he's gone.png"], "Same?"),
        ("HOME/he's gone.png whose is it?", ["HOME/he's gone.png"], "whose is it?"),
        ("file://HOME/it's.png what?", ["HOME/it's.png"], "what?"),
        ("./it's.png", ["./it's.png"], ""),
        ("'HOME/it's.png' what?", ["HOME/it's.png"], "what?"),
        (r"'HOME/it'\''s.png' what?", ["HOME/it's.png"], "what?"),
        ('HOME/say"cheese.png what?', ['HOME/say"cheese.png'], "what?"),
        (r"HOME/back\slash.png what?", [r"HOME/back\slash.png"], "what?"),
        ("/data/none's.png what's this?", ["/data/none's.png"], "what's this?"),
        (r"/data/none\'s.png what?", ["/data/none's.png"], "what?"),
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


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("https://example.com/a.png", ["https://example.com/a.png"]),
        ("https://example.com/page", ["https://example.com/page"]),
        ("HTTP://example.com/A.JPG?x=1#y what?", ["HTTP://example.com/A.JPG?x=1#y"]),
        ("What is in s3://bucket/a.webp?", ["s3://bucket/a.webp"]),
        ("Same: 'https://a.b/c.png', https://a.b/d.gif.", ["https://a.b/c.png", "https://a.b/d.gif"]),
        ("Does the sign say https://example.com?", []),
        ("What is a.png?", []),
        ("file:///data/a.png", []),
    ],
)
def test_pictures_of_the_web(text: str, addresses: list[str]) -> None:
    assert web_pictures(text) == addresses


def test_undecodable_names_come_back_as_bytes(home: Path) -> None:
    assert as_path("file:///caf%E9.png").encode("utf-8", "surrogateescape") == b"/caf\xe9.png"
