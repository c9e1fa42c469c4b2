"""TIFF taken apart: the first picture's directory with nothing in it but what makes up pixels.

Layout of a directory: TIFF 6.0, section 2, and BigTIFF. Pillow turns a TIFF upright itself and, when it does, writes
all tags anew; one number out of its range ends that. So the way up is read here and taken out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .containers import Pixels
from .orientation import ORIENTATION

_KIND = 254
_PIXEL_TAGS = frozenset(
    (
        *(_KIND, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325),
        *(332, 338, 339, 347, *range(512, 522), 529, 530, 531, 532),
    )
)
_DNG_VERSION = 50706
_MOST_PAGES = 1000


@dataclass(frozen=True)
class _Directory:
    """A directory's entries by tag, each as its bytes; where it stands, and where the next one does."""

    entries: dict[int, bytes]
    start: int
    next: int


@dataclass(frozen=True)
class _Layout:
    """How numbers are written: byte order, and the widths of a count of entries, of an entry and of an offset."""

    order: str
    big: bool

    @property
    def count(self) -> str:
        return self.order + ("Q" if self.big else "H")

    @property
    def offset(self) -> str:
        return self.order + ("Q" if self.big else "I")

    def directory(self, data: bytes, start: int) -> _Directory | None:
        """The directory at ``start``, or None where there is no whole one."""
        width, size = struct.calcsize(self.count), 20 if self.big else 12
        if not 0 < start <= len(data) - width:
            return None
        (count,) = struct.unpack_from(self.count, data, start)
        end = start + width + count * size
        if end + struct.calcsize(self.offset) > len(data):
            return None
        raw = [data[at : at + size] for at in range(start + width, end, size)]
        (following,) = struct.unpack_from(self.offset, data, end)
        return _Directory({struct.unpack_from(self.order + "H", one)[0]: one for one in raw}, start, following)

    def number(self, entry: bytes | None) -> int:
        """An entry's one number, 0 where it has none."""
        if entry is None:
            return 0
        (kind,) = struct.unpack_from(self.order + "H", entry, 2)
        width = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
        if width is None or (width == "Q" and not self.big):
            return 0
        return int(struct.unpack_from(self.order + width, entry, 12 if self.big else 8)[0])


def _layout(data: bytes) -> tuple[_Layout, int]:
    """The layout of a file, and where its first directory stands."""
    order = "<" if data[:2] == b"II" else ">"
    big = len(data) >= 16 and struct.unpack_from(order + "H", data, 2)[0] == 43
    if len(data) < 8:
        return _Layout(order, False), 0
    return _Layout(order, big), struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]


def is_raw(data: bytes) -> bool:
    """Whether a TIFF is a camera's raw file, whose first picture is a small preview at most."""
    layout, start = _layout(data)
    first = layout.directory(data, start)
    if data[8:10] == b"CR" or first is None:
        return data[8:10] == b"CR"
    return _DNG_VERSION in first.entries or bool(layout.number(first.entries.get(_KIND)) & 1)


def take_tiff(data: bytes) -> Pixels:
    """The first page's pixels. Its orientation comes as EXIF of one entry; ``frames`` counts full-size pages."""
    layout, start = _layout(data)
    first = layout.directory(data, start)
    if first is None:
        return Pixels(data)
    turned = layout.number(first.entries.get(ORIENTATION))
    exif = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", ORIENTATION, 3, 1, turned & 0xFFFF, 0, 0)
    kept = [entry for tag, entry in first.entries.items() if tag in _PIXEL_TAGS]
    directory = struct.pack(layout.count, len(kept)) + b"".join(kept) + struct.pack(layout.offset, 0)
    room = bytearray(data)
    room[first.start : first.start + len(directory)] = directory
    return Pixels(bytes(room), exif, frames=_pages(data, layout, first))


def _pages(data: bytes, layout: _Layout, first: _Directory) -> int:
    pages, seen, following = 1, {first.start}, first.next
    while following not in seen and len(seen) < _MOST_PAGES and (one := layout.directory(data, following)):
        pages += not layout.number(one.entries.get(_KIND)) & 1
        seen.add(following)
        following = one.next
    return pages
