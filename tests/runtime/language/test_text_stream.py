"""Streaming text: whole characters only, stop strings never shown."""

from __future__ import annotations

import pytest
from llava_edge.runtime.language.text_stream import TextStream


def feed(stream: TextStream, pieces: list[bytes]) -> list[str]:
    return [stream.push(piece) for piece in pieces]


def test_characters_are_never_cut() -> None:
    stream = TextStream()
    raw = "naïve 🦙".encode()
    shown = feed(stream, [bytes([byte]) for byte in raw])
    assert "".join(shown) + stream.finish() == "naïve 🦙"
    assert all("\ufffd" not in piece for piece in shown)


def test_broken_bytes_end_as_a_replacement() -> None:
    stream = TextStream()
    assert stream.push("é".encode()[:1]) == ""
    assert stream.finish() == "\ufffd"


@pytest.mark.parametrize("cut", range(1, 12))
def test_stop_string_is_found_however_it_is_cut(cut: int) -> None:
    text = b"yes\nUSER: more"
    stream = TextStream(("\nUSER:",))
    shown = feed(stream, [text[:cut], text[cut:]])
    assert "".join(shown) == "yes"
    assert stream.stopped
    assert stream.finish() == ""
    assert stream.text == "yes"


def test_a_false_start_of_a_stop_string_is_given_back() -> None:
    stream = TextStream(("STOP",))
    assert feed(stream, [b"a S", b"T", b"x ST"]) == ["a ", "", "STx "]
    assert stream.finish() == "ST"
    assert not stream.stopped


def test_earliest_stop_string_wins() -> None:
    stream = TextStream(("bbb", "a"))
    assert stream.push(b"xxabbb") == "xx"
