"""The thread that encodes while the reader reads: any pictures, tiles, reads, cancels and failures, in any order."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llava_edge.runtime.engine.encode_ahead import Encoding
from llava_edge.runtime.errors import Cancelled, NativeError
from llava_edge.runtime.pictures.encoded import EncodedImage
from llava_edge.runtime.pictures.encoder import LaidOutPicture
from llava_edge.runtime.pictures.geometry import Geometry
from llava_edge.runtime.pictures.picture import Picture, load_picture
from llava_edge.runtime.pictures.tiles import lay_out
from PIL import Image

GEOMETRY = Geometry(16, 8, ((32, 32), (16, 48)), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PROFILE = settings(max_examples=150, deadline=None, derandomize=True)


def laid_out(number: int) -> LaidOutPicture:
    picture: Picture = load_picture(Image.new("RGB", (20 + number, 30), (number, 0, 0)))
    return LaidOutPicture(picture, lay_out(picture.size, GEOMETRY))


def final_rows(image: LaidOutPicture) -> np.ndarray:
    """What a picture's rows are in the end: row r holds r and the picture's width."""
    rows = np.arange(image.layout.image_tokens, dtype=np.float32)
    return np.stack([rows, np.full_like(rows, image.picture.size[0])], axis=1)


@dataclass
class FakeEncoder:
    """Gives each picture's rows tile by tile; what does not hold yet is NaN. ``fails_at`` counts all tiles."""

    fails_at: int | None = None
    tiles: int = 0
    threads: set[str] = field(default_factory=set)

    def encode(
        self, image: Any, *, on_rows: Any = None, on_progress: Any = None, cancelled: Any = None
    ) -> EncodedImage:
        if isinstance(image, EncodedImage):
            return image
        whole, tiles = final_rows(image), image.layout.tiles
        for tile in range(tiles):
            if cancelled is not None and cancelled():
                raise Cancelled
            if self.tiles == self.fails_at:
                raise NativeError(expected="a tile", got="device lost", fix="plug it in")
            self.tiles += 1
            self.threads.add(threading.current_thread().name)
            if on_progress is not None:
                on_progress(tile + 1, tiles)
            if on_rows is not None and tile + 1 < tiles:
                ready = len(whole) * (tile + 1) // tiles
                early = whole.copy()
                early[ready:] = np.nan
                on_rows(early, ready)
        return EncodedImage(whole, image.key, image.layout, image.picture.name, 0.0)


@dataclass
class Reader:
    """The caller's side: notes what it is told and from which thread, and cancels at its n-th question."""

    cancels_at: int | None = None
    asked: int = 0
    steps: list[tuple[int, int]] = field(default_factory=list)
    threads: set[threading.Thread] = field(default_factory=set)

    def progress(self, done: int, total: int) -> None:
        self.threads.add(threading.current_thread())
        self.steps.append((done, total))

    def cancelled(self) -> bool:
        self.threads.add(threading.current_thread())
        self.asked += 1
        return self.cancels_at is not None and self.asked > self.cancels_at


def read_all(encoding: Encoding, images: Sequence[LaidOutPicture], chunk: int) -> None:
    for image in images:
        rows, whole = encoding.rows[image.key], final_rows(image)
        for start in range(0, len(whole), chunk):
            stop = min(start + chunk, len(whole))
            assert np.array_equal(rows[start:stop], whole[start:stop])  # NaN where a row was handed out too early


@PROFILE
@given(
    numbers=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    chunk=st.integers(1, 40),
    overlapped=st.booleans(),
    fails_at=st.none() | st.integers(0, 12),
    cancels_at=st.none() | st.integers(0, 6),
    stops_early=st.booleans(),
)
def test_rows_are_final_and_ends_are_clean(
    numbers: list[int],
    chunk: int,
    overlapped: bool,
    fails_at: int | None,
    cancels_at: int | None,
    stops_early: bool,
) -> None:
    images = [laid_out(number) for number in numbers]
    encoder, reader = FakeEncoder(fails_at), Reader(cancels_at)
    failure: type[Exception] | None = None
    encoding = None
    try:
        encoding = Encoding(
            images, encoder, on_progress=reader.progress, cancelled=reader.cancelled, overlapped=overlapped
        )
        if not encoding.cancelled and not stops_early:
            read_all(encoding, images, chunk)
    except (NativeError, Cancelled) as error:
        failure = type(error)
    if encoding is not None:
        finish = failure is None and not stops_early and not encoding.cancelled
        try:
            encoding.close(finish=finish)
        except NativeError:  # behind the last row that was read
            failure = NativeError
        encoding.close(finish=finish)
        if finish:
            assert (len(encoding.images) == len(images)) == (failure is None)
        for image, encoded in zip(images, encoding.images, strict=False):
            assert np.array_equal(encoded.embeddings, final_rows(image))
    assert reader.threads <= {threading.current_thread()}
    assert encoder.threads <= ({"vision"} if overlapped else {threading.current_thread().name})
    assert not [thread for thread in threading.enumerate() if thread.name == "vision"]
    assert all(0 < done <= total for done, total in reader.steps)
    if failure is NativeError:
        assert fails_at is not None
    if fails_at is None and cancels_at is None and not stops_early:
        assert failure is None
        assert encoding is not None
        assert len(encoding.images) == len(images)
        assert reader.steps == [
            (tile, image.layout.tiles) for image in images for tile in range(1, image.layout.tiles + 1)
        ]


@pytest.mark.parametrize("overlapped", [False, True])
def test_a_picture_encoded_before_is_there_at_once(overlapped: bool) -> None:
    new, encoder = laid_out(1), FakeEncoder()
    known = encoder.encode(laid_out(2))
    encoder.tiles = 0
    encoding = Encoding([known, new], encoder, on_progress=None, cancelled=None, overlapped=overlapped)
    assert np.array_equal(encoding.rows[known.key][0:3], known.embeddings[:3])
    assert np.array_equal(encoding.rows[new.key][0:9], final_rows(new)[:9])
    encoding.close(finish=True)
    assert encoder.tiles == new.layout.tiles
    assert [image.key for image in encoding.images] == [known.key, new.key]
