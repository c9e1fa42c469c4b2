"""Which way is up: the orientation that EXIF or XMP state, as far as it can be read."""

from __future__ import annotations

import re
import struct

from PIL import Image

ORIENTATION = 0x0112
_SHORT, _LONG, _BYTE = 3, 4, 1
_FORMATS = {_BYTE: "B", _SHORT: "H", _LONG: "I"}
_XMP = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])""")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(exif: bytes, xmp: bytes = b"") -> int:
    """The orientation, 1 to 8; EXIF's before XMP's, and 1 where neither has one that can be read.

    Only the entry itself is looked at, so nothing else that is wrong with an EXIF block hides it.
    """
    found = _from_exif(exif.removeprefix(b"Exif\0\0"))
    if found is None and (stated := _XMP.search(xmp)):
        found = int(stated[1])
    return found or 1


def _from_exif(block: bytes) -> int | None:
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 10:
        return None
    (start,) = struct.unpack_from(order + "I", block, 4)
    if start + 2 > len(block):
        return None
    (count,) = struct.unpack_from(order + "H", block, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", block, at)
        if tag == ORIENTATION and kind in _FORMATS:
            (value,) = struct.unpack_from(order + _FORMATS[kind], block, at + 8)
            return value if value in range(1, 9) else None
    return None


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """``image`` itself where it stands upright, else a turned copy."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) once the picture is upright."""
    return (size[1], size[0]) if orientation >= 5 else size
