"""Streaming text: whole characters only, stop strings never shown."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies
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


RAW = strategies.text("a🦙", max_size=12).map(str.encode) | strategies.binary(max_size=12)
STOPS = strategies.lists(strategies.text("a🦙", min_size=1, max_size=4), max_size=3)


def cut_off(text: str, stops: list[str]) -> str:
    """What stands in front of the stop string that is complete first; of two, the longer one."""
    for end in range(len(text) + 1):
        found = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: min(found)]
    return text


@settings(max_examples=500)
@given(raw=RAW, cuts=strategies.sets(strategies.integers(1, 40)), stops=STOPS)
def test_the_text_is_the_same_however_it_comes(raw: bytes, cuts: set[int], stops: list[str]) -> None:
    stream = TextStream(stops)
    whole = raw.decode("utf-8", "replace")
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    shown = feed(stream, [raw[begin:end] for begin, end in pairwise(edges)])
    assert "".join(shown) + stream.finish() == stream.text == cut_off(whole, stops)
    assert stream.stopped == any(stop in whole for stop in stops)


@given(pieces=strategies.lists(strategies.text("a🦙", max_size=3), max_size=6), stops=STOPS)
def test_nothing_is_held_back_but_the_start_of_a_stop_string(pieces: list[str], stops: list[str]) -> None:
    stream, come = TextStream(stops), ""
    for piece in pieces:
        come += piece
        stream.push(piece.encode())
        assert come.startswith(stream.text)
        held = come[len(stream.text) :]
        assert stream.stopped or not held or any(stop.startswith(held) for stop in stops)
