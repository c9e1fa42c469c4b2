"""Whatever a picture is given as, it is the same picture; what can't be read is said to be what it is."""

from __future__ import annotations

import base64
import errno
import io
import os
import socket
import threading
import tracemalloc
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime.errors import ImageError
from llava_edge.runtime.pictures.picture import load_picture, picture_size
from PIL import Image

SMOOTH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 15, 3), np.uint8)).resize((150, 100))


def png(image: Image.Image = SMOOTH) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class Named:
    """A path of somebody's own making."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


class NamedBytes(bytes):
    """Bytes that say where they are from, as those of ``ask -``."""

    name = "standard input"


class Stream:
    """A file that can't be rewound, as a response of the network."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


class Trickle(Stream):
    """A file that gives less than it is asked for, as pipes and connections do."""

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 7) if size >= 0 else 7)


class Unbuffered(io.RawIOBase):
    """A raw file: it takes memory for all that it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._data.readinto(buffer)


def read_on(file: io.BytesIO) -> io.BytesIO:
    file.read(20)
    return file


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def wrapped(data: bytes) -> str:
    return "\n".join(text(data)[at : at + 76] for at in range(0, len(text(data)), 76))


SOURCES: dict[str, Callable[[Path], Any]] = {
    "str": str,
    "Path": Path,
    "path-like": Named,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "every second byte": lambda path: memoryview(b"".join(bytes([one, 0]) for one in path.read_bytes()))[::2],
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "BytesIO read on": lambda path: read_on(io.BytesIO(path.read_bytes())),
    "stream": lambda path: Stream(path.read_bytes()),
    "trickle": lambda path: Trickle(path.read_bytes()),
    "unbuffered": lambda path: Unbuffered(path.read_bytes()),
    "Pillow": lambda _: SMOOTH,
    "array": lambda _: np.asarray(SMOOTH),
    "array seen backwards": lambda _: np.ascontiguousarray(np.asarray(SMOOTH)[::-1])[::-1],
    "data URL": lambda path: f"data:image/png;base64,{text(path.read_bytes())}",
    "data URL in capitals": lambda path: f"DATA:IMAGE/PNG;BASE64,{text(path.read_bytes())}",
    "data URL of several lines": lambda path: f"data:image/png;base64,{wrapped(path.read_bytes())}",
    "data URL without padding": lambda path: f"data:image/png;base64,{text(path.read_bytes()).rstrip('=')}",
    "data URL quoted": lambda path: f"data:image/png;base64,{urllib.parse.quote(text(path.read_bytes()), safe='')}",
    "data URL without base64": lambda path: f"data:image/png,{urllib.parse.quote_from_bytes(path.read_bytes())}",
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_way_to_give_a_picture(source: str, tmp_path: Path) -> None:
    path = tmp_path / "a b.png"
    path.write_bytes(png())
    picture = load_picture(SOURCES[source](path))
    assert np.array_equal(np.asarray(picture.image), np.asarray(SMOOTH))


def test_a_pillow_image_that_was_not_read_yet(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with Image.open(tmp_path / "a.png") as lazy:
        assert np.array_equal(np.asarray(load_picture(lazy).image), np.asarray(SMOOTH))


def test_an_open_file_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with (tmp_path / "a.png").open("rb") as file:
        assert load_picture(file).name == str(tmp_path / "a.png")
        assert load_picture(file).size == (150, 100)  # and again


@pytest.mark.parametrize("look", [load_picture, picture_size])
@pytest.mark.parametrize("source", ["str", "BytesIO", "stream", "trickle", "unbuffered", "bytes", "data URL"])
def test_a_picture_takes_the_memory_of_what_is_there(source: str, look: Callable[[Any], Any], tmp_path: Path) -> None:
    """And not that of the largest file there may be."""
    path = tmp_path / "a.png"
    path.write_bytes(png())
    load_picture(path)  # what is imported first is counted to nobody
    tracemalloc.start()
    try:
        look(SOURCES[source](path))
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def exhausted(*_: object, **__: object) -> Any:
    raise MemoryError


@pytest.mark.parametrize(
    ("source", "broken"),
    [
        ("str", "pathlib.Path.open"),
        ("unbuffered", "Unbuffered.readinto"),
        ("stream", "Stream.read"),
        ("data URL", "base64.b64decode"),
        ("bytes", "PIL.Image.open"),
        ("bytes", "PIL.ImageFile.ImageFile.load"),
        ("bytes", "llava_edge.runtime.pictures.picture.take_apart"),
        ("Pillow", "PIL.Image.Image.load"),
        ("array", "PIL.Image.fromarray"),
    ],
)
def test_too_little_memory_is_one_line(
    source: str, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(png())
    value = SOURCES[source](tmp_path / "a.png")
    where, _, name = broken.rpartition(".")
    ours: dict[str, Any] = {"Stream": Stream, "Unbuffered": Unbuffered}
    if where in ours:
        monkeypatch.setattr(ours[where], name, exhausted)
    else:
        monkeypatch.setattr(broken, exhausted)
    with pytest.raises(ImageError, match=r"expected memory for the picture .*; got too little; close other programs"):
        load_picture(value)


def closed(file: Any) -> Any:
    file.close()
    return file


WRONG: dict[str, tuple[Any, str]] = {
    "grey array": (np.zeros((4, 5), np.uint8), r"uint8 of shape \(height, width, 3\).*got uint8 \(4, 5\)"),
    "array with alpha": (np.zeros((4, 5, 4), np.uint8), r"got uint8 \(4, 5, 4\)"),
    "channels first": (np.zeros((3, 40, 50), np.uint8), r"got uint8 \(3, 40, 50\)"),
    "array of floats": (np.zeros((4, 5, 3)), r"got float64 \(4, 5, 3\)"),
    "batch": (np.zeros((2, 4, 5, 3), np.uint8), r"got uint8 \(2, 4, 5, 3\)"),
    "no dimensions": (np.array("a.png"), r"got <U5 \(\)"),
    "objects": (np.array([None, None]), r"got object \(2,\)"),
    "no rows": (np.zeros((0, 5, 3), np.uint8), "at least one pixel.*5x0"),
    "number": (7, "got int 7"),
    "None": (None, "got None"),
    "dictionary": ({"url": "x" * 300_000}, "got a dict"),
    "list": (["a.png"], "got a list"),
    "class": (Path, "got a type"),
    "text file": (io.StringIO("hello"), "gives str; open it with mode 'rb'"),
    "closed file": (closed(io.BytesIO(png())), "closed file"),
    "closed Pillow image": (closed(Image.new("RGB", (4, 4))), "got a closed one; open it again"),
    "no data": (b"", "HEIC picture; got an empty file"),
    "named bytes": (NamedBytes(b"GIF89a"), "a whole picture in standard input"),
    "damaged bytes": (png()[:60], "expected a whole picture; got a damaged one"),
    "empty data URL": ("data:image/png;base64,", "HEIC picture; got an empty file"),
    "empty path": ("", "an empty one"),
    "web address": ("https://example.org/a.png", "an address .*download the picture"),
    "file address": ("file:///tmp/a.png", "without file://"),
    "bare base64": (base64.b64encode(png()).decode(), "a name that is too long|no such file"),
    "data URL without data": ("data:image/png;base64", "no comma"),
    "data URL of junk": ("data:image/png;base64,!!!" + "y" * 300_000, "a data URL: .*base64"),
    "data URL of half a byte": ("data:image/png;base64,A", "a data URL"),
    "data URL of text": ("data:text/plain,hello", "begins with b'hello'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_picture_is_one_short_line(case: str) -> None:
    value, said = WRONG[case]
    with pytest.raises(ImageError, match=said) as caught:
        load_picture(value)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_a_pillow_image_whose_file_is_gone(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    lazy = Image.open(tmp_path / "a.png")
    lazy.close()
    with pytest.raises(ImageError, match=r"closed|damaged"):
        load_picture(lazy)


def unreadable(folder: Path) -> dict[str, tuple[Path | str, str]]:
    """Paths that can't be read, and what is said of them."""
    (folder / "file").write_text("x")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "gone").symlink_to(folder / "was-here.png")
    os.mkfifo(folder / "pipe")
    (folder / "to-pipe").symlink_to(folder / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.close()
    return {
        "nothing": (folder / "none.png", "no such file"),
        "in no folder": (folder / "none" / "a.png", "no such file"),
        "through a file": (folder / "file" / "a.png", "goes through a file"),
        "too long": (folder / ("x" * 300 + ".png"), "too long"),
        "far too long": ("y/" * 5000, "too long"),
        "loop": (folder / "loop", "a loop of symbolic links"),
        "through a loop": (folder / "loop" / "a.png", "a loop of symbolic links"),
        "dangling": (folder / "gone", "a link to .*was-here.png, which is not there"),
        "NUL": ("a\0b.png", "NUL"),
        "folder": (folder, "a directory"),
        "pipe": (folder / "pipe", "a device or pipe"),
        "link to a pipe": (folder / "to-pipe", "a device or pipe"),
        "device": ("/dev/zero", "a device or pipe"),
        "socket": (folder / "socket", "a socket"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "nothing",
        "in no folder",
        "through a file",
        "too long",
        "far too long",
        "loop",
        "through a loop",
        "dangling",
        "NUL",
        "folder",
        "pipe",
        "link to a pipe",
        "device",
        "socket",
    ],
)
def test_what_can_not_be_read_is_said_to_be_what_it_is(
    case: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("p")
    monkeypatch.chdir(folder)
    path, said = unreadable(folder)[case]
    caught: list[BaseException] = []

    def load() -> None:
        try:
            load_picture(path)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=load, daemon=True)  # a pipe that is opened would hold it for ever
    thread.start()
    thread.join(10)
    (error,) = caught
    with pytest.raises(ImageError, match=said):
        raise error
    assert len(str(error)) < 600


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "Permission denied, for the file or one of its folders"),
        (errno.EPERM, "Permission denied"),
        (errno.EIO, "Input/output error"),
        (errno.ESTALE, "Stale file handle"),
    ],
)
@pytest.mark.parametrize("call", ["stat", "open"])
def test_what_the_system_says(number: int, said: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Played, because tests may run as root, whom no mode keeps out."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(ImageError, match=said) as caught:
        load_picture("examples/sign.png" if call == "stat" else Path(__file__))
    assert "no such file" not in str(caught.value)


def test_names_in_messages_are_visible_and_short(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        load_picture(tmp_path / "a\x1b[31m\n  b\u202e.png")
    assert "a\\x1b[31m\\n  b\\u202e.png" in str(caught.value)
    with pytest.raises(ImageError) as caught:
        load_picture(os.fsdecode(b"caf\xe9.png"))
    assert str(caught.value).encode()
