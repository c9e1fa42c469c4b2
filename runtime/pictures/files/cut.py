"""Files that end early: how much of the picture is missing, and the picture with that part filled in."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from .containers import PNG_START, Pixels, jpeg_segments, take_apart

MOST_MISSING = 0.25
"""The share of a picture that may be missing; beyond it the file is refused."""
_OTHER_FILLER = 0x55
_BLOCK = 16
"""Rows that a JPEG or WebP writes together, at most."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
FINEST = 0.005
"""What stands for the last bits of a progressive JPEG whose last scan is cut: they are hardly to be seen."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

Decode = Callable[[bytes], Image.Image]


def fill_in(data: bytes, kind: str, pixels: Pixels, decode: Decode) -> tuple[Image.Image, float] | None:
    """The picture of a cut file and the share of it that is missing; None where nothing can be said of it.

    ``decode`` makes a picture of a whole file's bytes. JPEG and WebP are decoded with two different fillings: where
    the results begin to differ the file's own data end. Of a PNG the rows that are there are counted. A progressive
    JPEG is judged by its scans, which each run over the whole picture.
    """
    if kind == "PNG":
        return _fill_png(pixels.data, decode)
    if kind == "JPEG" and (progressive := _scans(pixels.data)) is not None:
        return (decode(pixels.data), FINEST) if progressive else None
    filled = decode(pixels.data)
    other = decode(take_apart(data, kind, filler=_OTHER_FILLER).data)
    return filled, _differing(np.asarray(filled), np.asarray(other))


def _differing(one: np.ndarray, other: np.ndarray) -> float:
    """The share of pixels from the first that differs on, in the order in which blocks are written."""
    if one.shape != other.shape:
        return 1.0
    differs = (one != other).reshape(*one.shape[:2], -1).any(axis=2)
    if not differs.any():
        return 0.0
    height, width = differs.shape
    first = int(differs.any(axis=1).argmax())
    band = differs[first : first + _BLOCK]
    left = int(band.any(axis=0).argmax())
    below = max(height - first - len(band), 0)
    return float(((width - left) * len(band) + width * below) / differs.size)


def _scans(data: bytes) -> bool | None:
    """Whether a JPEG of several scans has begun the last of them; None for one that needs but one.

    The last one is where the last bits of all coefficients of all components have been in some scan (ITU T.81, G).
    """
    wanted: set[tuple[int, int]] = set()
    scans = 0
    for marker, segment, _ in jpeg_segments(data):
        if marker in _FRAMES:
            wanted = {(component, index) for component in segment[10::3] for index in range(64)}
        elif marker == 0xDA and len(segment) >= 8 + 2 * segment[4]:
            scans += 1
            count = segment[4]
            low, high, bits = segment[5 + 2 * count : 8 + 2 * count]
            if bits & 15 == 0:
                wanted -= {(one, at) for one in segment[5 : 5 + 2 * count : 2] for at in range(low, high + 1)}
    return None if scans <= 1 and not wanted else not wanted


def _fill_png(data: bytes, decode: Decode) -> tuple[Image.Image, float] | None:
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, len(PNG_START) + 8)
    if interlaced:  # its passes run over the whole picture: there are no rows to fill
        return decode(data), 0.0
    at = data.find(b"IDAT")
    stream = data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at], "big")]
    row = 1 + (width * _CHANNELS.get(colour, 4) * depth + 7) // 8
    try:
        raw = zlib.decompressobj().decompress(stream, row * height)
    except zlib.error:
        return None
    rows = len(raw) // row
    whole = raw[: rows * row] + bytes(row * (height - rows))
    packed = zlib.compress(whole, 1)
    chunk = b"IDAT" + packed
    filled = len(packed).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return decode(data[: at - 4] + filled + b"\0\0\0\0IEND\xaeB`\x82"), 1 - rows / height
