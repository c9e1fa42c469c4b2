"""Names and answers can't steer a terminal, and stay readable."""

from __future__ import annotations

import json
import re
import sys
import unicodedata

import pytest
from llava_edge.cli.terminal.visible import printable, quoted, shortened, typed_text, visible

STEERING = {
    "\x1b[31mred": "\\x1b[31mred",
    "bell\x07": "bell\\x07",
    "two\nlines\r": "two\\nlines\\r",
    "c1\x9b31m": "c1\\x9b31m",
    "delete\x7f": "delete\\x7f",
    "tab\t": "tab\\t",
    "\u202egnp.exe": "\\u202egnp.exe",
    "\u2066isolate": "\\u2066isolate",
    "mark\u200f": "mark\\u200f",
    "zero\u200bwidth\ufeff": "zero\\u200bwidth\\ufeff",
    "line\u2028para\u2029": "line\\u2028para\\u2029",
    "tag\U000e0041": "tag\\U000e0041",
    "byte\udcff\udc80": "byte\\xff\\x80",
    "half\ud800": "half\\ud800",
}
ORDINARY = [
    "a  b.png",
    "C:\\new\\table.png",
    "Müller.png",
    "日本語.jpg",
    "می\u200cخواهم",
    "👩\u200d🔬.png",
    "é",
    "a\u00a0b",
]


@pytest.mark.parametrize(("text", "shown"), STEERING.items())
def test_what_steers_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert len(visible(text).splitlines()) == 1


@pytest.mark.parametrize("text", ORDINARY)
def test_the_rest_stays(text: str) -> None:
    assert visible(text) == printable(text) == text


def test_no_character_at_all_gets_through() -> None:
    """Against Unicode's own categories, over everything there is."""
    kept = "".join(visible(chr(code)) for code in range(sys.maxunicode + 1))
    steering = {unicodedata.category(one) for one in set(kept) - set("\u200c\u200d")} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not steering


def test_an_answer_keeps_its_lines_and_directions() -> None:
    assert printable("a\n\tb\u200f") == "a\n\tb\u200f"
    assert printable("\x1b]0;title\x07\u202e\r") == "\\x1b]0;title\\x07\\u202e\\r"


def test_long_words_are_cut() -> None:
    assert len(shortened("x" * 10_000)) == 199
    assert shortened(" ".join(["word"] * 100)) == " ".join(["word"] * 100)
    assert len(shortened("word " * 10_000)) == 999
    assert len(quoted("some words " * 100)) <= 201
    assert shortened("a  b") == "a  b"


def test_typed_bytes_are_read_as_text() -> None:
    assert typed_text("caf\udcc3\udca9") == "café"
    assert typed_text("\udcff?") == "\ufffd?"
    assert typed_text("café") == "café"


def test_escapes_are_what_python_writes() -> None:
    for text, shown in STEERING.items():
        if not re.search("[\ud800-\udfff]", text):
            assert json.loads(json.dumps(shown)).encode("ascii").decode("unicode_escape") == text
