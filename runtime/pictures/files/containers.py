"""PNG, JPEG and WebP taken apart: what makes up the pixels goes to the decoder, the rest only where it says the way up.

Text, colour profiles, thumbnails and EXIF are where pictures are damaged most often, and a decoder that looks at them
refuses good pixels for them. None of it changes a pixel here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_TEXT_LIMIT = 2**20
"""Bytes of compressed text that are unpacked to look for the orientation."""
PNG_START = b"\x89PNG\r\n\x1a\n"
_SCAN, _END = 0xDA, 0xD9
_GARBAGE = 256
"""Bytes of filler behind what is left of a JPEG: enough to fill a block, whatever its code is."""
_SPARE = 2**16
"""Bytes beyond a WebP's stated size: filler may decode to more than the picture did, and running out is an error."""


@dataclass(frozen=True)
class Pixels:
    """A file reduced to its first picture: ``data`` for the decoder, and what was found beside it.

    ``frames`` counts the pictures that the whole file has. ``cut`` says that it ends before its format does.
    """

    data: bytes
    exif: bytes = b""
    xmp: bytes = b""
    frames: int = 1
    cut: bool = False


def take_apart(data: bytes, kind: str, *, filler: int = 0) -> Pixels:
    """The pixels of a ``kind`` of file. Where its end is missing, bytes ``filler`` stand for it (PNG: see ``cut``)."""
    if kind == "JPEG":
        return _jpeg(data, filler)
    if kind == "PNG":
        return _png(data)
    return _webp(data, filler)


def _jpeg(data: bytes, filler: int) -> Pixels:
    """All segments but the application's own and comments. Of those, JFIF and Adobe say what the colours are."""
    kept, exif, xmp = [b"\xff\xd8"], b"", b""
    for marker, segment, start in jpeg_segments(data):
        body = segment[4:]
        if marker == _SCAN:
            scans, cut = data[start:], data.rfind(b"\xff\xd9") < start
            if cut:
                scans = scans.rstrip(b"\xff") + bytes([filler]) * (_GARBAGE if filler else 0) + b"\xff\xd9"
            return Pixels(b"".join([*kept, scans]), exif, xmp, cut=cut)
        if marker == 0xE1:
            exif = exif or body.removeprefix(b"Exif\0\0") if body.startswith(b"Exif\0\0") else exif
            xmp = xmp or body if body.startswith(b"http://ns.adobe.com/xap/1.0/\0") else xmp
        colours = (marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14) or (
            marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12
        )
        if colours or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(segment)
    return Pixels(data, exif, xmp)


def jpeg_segments(data: bytes, start: int = 2) -> Iterator[tuple[int, bytes, int]]:
    """(marker, segment, where it begins) from ``start`` on; as libjpeg does, what is no marker is passed over."""
    at = start
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 3:
        marker = data[at + 1]
        if marker == 0xFF or marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD9:
            at += 1 if marker == 0xFF else 2
            continue
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, data[at : at + 2 + size], at
        at += 2 + max(size, 2)


def _png(data: bytes) -> Pixels:
    """Header, palette, transparency and pixels; the pixels as one chunk."""
    head, stream, exif, xmp, frames, ended = [PNG_START], [], b"", b"", 1, False
    for kind, body, sound in _png_chunks(data):
        if kind == b"IDAT":
            stream.append(body)
        elif kind == b"IHDR" or (kind == b"PLTE" and _is_palette(head)) or (kind == b"tRNS" and sound and not stream):
            head.append(_chunk(kind, body) if sound else _chunk(kind, body, sound=False))
        elif kind == b"acTL" and sound and len(body) >= 4:
            frames = max(1, int.from_bytes(body[:4], "big"))
        elif kind == b"eXIf":
            exif = exif or body
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            exif, xmp = exif or _exif_in_text(kind, body), xmp or _xmp_in_text(kind, body)
        ended = ended or kind == b"IEND"
    pixels = [_chunk(b"IDAT", b"".join(stream))] if stream else []
    end = [_chunk(b"IEND", b"")] if stream else []
    return Pixels(b"".join([*head, *pixels, *end]), exif, xmp, frames, cut=not ended)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """(kind, body, whether its checksum holds) up to the end. A length beyond the file is taken for damage."""
    at, seen = len(PNG_START), False
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 8 + size
        pixels = data.find(b"IDAT", at)
        if end > len(data) and kind != b"IDAT" and not seen and pixels >= at + 8:
            at = pixels - 4
            continue
        body = data[at + 8 : end]
        yield kind, body, data[end : end + 4] == zlib.crc32(kind + body).to_bytes(4, "big")
        seen = seen or kind == b"IDAT"
        if kind == b"IEND":
            return
        at = end + 4


def _chunk(kind: bytes, body: bytes, *, sound: bool = True) -> bytes:
    """A PNG chunk; one that was not ``sound`` keeps a checksum that does not hold."""
    checksum = zlib.crc32(kind + body) ^ (0 if sound else 1)
    return len(body).to_bytes(4, "big") + kind + body + checksum.to_bytes(4, "big")


def _is_palette(head: list[bytes]) -> bool:
    return len(head) > 1 and head[1][17:18] == b"\x03"


def _text(kind: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Keyword and text of a PNG's text chunk; what is compressed only as far as :data:`_TEXT_LIMIT`."""
    keyword, _, rest = body.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, _TEXT_LIMIT)
        except zlib.error:
            rest = b""
    return keyword, rest


def _exif_in_text(kind: bytes, body: bytes) -> bytes:
    """EXIF as ImageMagick writes it into text: a name, a length, and hexadecimal digits."""
    if not body.startswith(b"Raw profile type "):
        return b""
    keyword, text = _text(kind, body)
    if keyword not in (b"Raw profile type exif", b"Raw profile type APP1"):
        return b""
    digits = b"".join(text.split(b"\n")[3:])
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""


def _xmp_in_text(kind: bytes, body: bytes) -> bytes:
    return _text(kind, body)[1] if body.startswith(b"XML:com.adobe.xmp\0") else b""


def _webp(data: bytes, filler: int) -> Pixels:
    """The pixel chunks, of an animation the first frame's; the header's flags say so."""
    kept, exif, xmp, frames, cut = [], b"", b"", 0, int.from_bytes(data[4:8], "little") + 8 > len(data)
    at = 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + size]
        frames += kind == b"ANMF"
        if kind == b"EXIF":
            exif = body
        elif kind == b"XMP ":
            xmp = body
        elif kind in (b"VP8X", b"ALPH", b"VP8 ", b"VP8L", b"ANIM") or (kind == b"ANMF" and frames == 1):
            if kind == b"VP8X" and body:
                body = bytes([body[0] & ~0x2C]) + body[1:]  # no profile, EXIF or XMP
            if len(body) < size:
                body += bytes([filler]) * (min(size, 2**28) - len(body) + _SPARE)
            kept.append(kind + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2))
        at += 8 + size + size % 2
    chunks = b"".join(kept)
    riff = b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WEBP" + chunks
    return Pixels(riff, exif, xmp, max(frames, 1), cut)
