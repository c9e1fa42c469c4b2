"""Uploads are kept by content, for a while, within bounds; the oldest go first."""

from __future__ import annotations

import dataclasses
import hashlib

from llava_edge.serve.models.uploads import Uploads
from llava_edge.serve.settings import Limits

LIMITS = dataclasses.replace(Limits(), kept_pictures=3, kept_bytes=100, kept_seconds=60.0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_names_are_hashes_of_the_content() -> None:
    uploads = Uploads(LIMITS)
    name = uploads.add(b"one")
    assert name == f"sha256-{hashlib.sha256(b'one').hexdigest()}"
    assert uploads.add(b"one") == name
    assert (len(uploads), uploads.size, uploads.find(name)) == (1, 3, b"one")
    assert uploads.find("sha256-0") is None


def test_the_oldest_go_first() -> None:
    uploads = Uploads(LIMITS)
    names = [uploads.add(bytes([number]) * 10) for number in range(3)]
    uploads.add(bytes([0]) * 10)  # sent again: the youngest now
    fourth = uploads.add(b"x")
    assert [uploads.find(name) is not None for name in (*names, fourth)] == [True, False, True, True]


def test_bytes_are_bounded() -> None:
    uploads = Uploads(LIMITS)
    first, second = uploads.add(b"a" * 60), uploads.add(b"b" * 50)
    assert (uploads.find(first), uploads.size) == (None, 50)
    assert uploads.find(second)
    uploads.add(b"c" * 101)
    assert uploads.size == 0


def test_they_are_forgotten_after_their_time() -> None:
    clock = Clock()
    uploads = Uploads(LIMITS, clock)
    old = uploads.add(b"old")
    clock.now = 59.0
    young = uploads.add(b"young")
    clock.now = 61.0
    assert uploads.find(old) is None
    assert uploads.find(young) == b"young"
    clock.now = 200.0
    assert len(uploads) == uploads.size == 0
