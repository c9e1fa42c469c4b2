"""What a file is, by its first bytes: pictures that are read, and what else goes by a picture's name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

from .tiff import is_raw

HEAD = 4096
"""Bytes that are looked at."""
CONVERT = "convert it to PNG or JPEG"
EXPORT = "open it in the program it belongs to and export a PNG or JPEG"
FRAME = "save one frame of it: ffmpeg -i VIDEO -frames:v 1 frame.png"
AGAIN = "get the file again"


@dataclass(frozen=True)
class Kind:
    """What a file is, as a noun phrase; ``decoder`` where it is read, else ``fix``, what to do instead."""

    name: str
    decoder: str = ""
    fix: str = CONVERT


PNG, JPEG = Kind("a PNG picture", "PNG"), Kind("a JPEG picture", "JPEG")
WEBP, BMP, GIF = Kind("a WebP picture", "WEBP"), Kind("a BMP picture", "BMP"), Kind("a GIF picture", "GIF")
TIFF, AVIF, HEIC = Kind("a TIFF picture", "TIFF"), Kind("an AVIF picture", "AVIF"), Kind("a HEIC picture", "HEIF")
READ = "a PNG, JPEG, WebP, BMP, GIF, TIFF, AVIF or HEIC picture"

_RAW = Kind("a camera's RAW file", fix="develop it: export a JPEG or TIFF from the camera's program or darktable")
_VIDEO = Kind("a video", fix=FRAME)
_SOUND = Kind("a sound file", fix="give a picture")
_ARCHIVE_FIX = "unpack it and give the picture inside"
_RAW_SUFFIXES = (
    *(".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".cr2", ".pef", ".srw"),
    *(".rwl", ".3fr", ".iiq", ".erf", ".kdc", ".dcr", ".mos", ".raw"),
)

_BEGINNINGS: tuple[tuple[bytes, Kind], ...] = (
    (b"\x89PNG", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"GIF8", GIF),
    (b"BM", BMP),
    (b"\0\0\0\x0cjP  ", Kind("a JPEG 2000 picture")),
    (b"\xff\x4f\xff\x51", Kind("a JPEG 2000 picture")),
    (b"\xff\x0a", Kind("a JPEG XL picture", fix="convert it: djxl PICTURE.jxl picture.png")),
    (b"\0\0\0\x0cJXL ", Kind("a JPEG XL picture", fix="convert it: djxl PICTURE.jxl picture.png")),
    (b"IIRO", _RAW),
    (b"IIRS", _RAW),
    (b"MMOR", _RAW),
    (b"IIU\0", _RAW),
    (b"FUJIFILMCCD-RAW", _RAW),
    (b"FOVb", _RAW),
    (b"\0MRM", _RAW),
    (b"8BPS", Kind("a Photoshop document (PSD)", fix=EXPORT)),
    (b"gimp xcf", Kind("a GIMP document (XCF)", fix=EXPORT)),
    (b"\0\0\1\0", Kind("an icon file (ICO)")),
    (b"\0\0\2\0", Kind("a cursor file (CUR)")),
    (b"icns", Kind("an icon file (ICNS)")),
    (b"%!PS", Kind("a PostScript document", fix="convert it: gs -sDEVICE=png16m -o page.png DOCUMENT")),
    (b"\xc5\xd0\xd3\xc6", Kind("an EPS document", fix="convert it: gs -sDEVICE=png16m -o page.png DOCUMENT")),
    (b"AT&TFORM", Kind("a DjVu document", fix="convert a page: ddjvu -format=tiff -page=1 DOCUMENT page.tif")),
    (b"\xd7\xcd\xc6\x9a", Kind("a Windows metafile (WMF)")),
    (b"v/1\1", Kind("an OpenEXR picture")),
    (b"#?RADIANCE", Kind("a Radiance HDR picture")),
    (b"qoif", Kind("a QOI picture")),
    (b"DDS ", Kind("a DDS texture")),
    (b"\xabKTX", Kind("a KTX texture")),
    (b"SIMPLE  =", Kind("a FITS picture")),
    (b"BPG\xfb", Kind("a BPG picture")),
    (b"II\xbc\1", Kind("a JPEG XR picture")),
    (b"\x01\xda\0", Kind("an SGI picture")),
    (b"\x01\xda\1", Kind("an SGI picture")),
    (b"\x59\xa6\x6a\x95", Kind("a Sun raster picture")),
    (b"SDPX", Kind("a DPX picture")),
    (b"XPDS", Kind("a DPX picture")),
    (b"/* XPM */", Kind("an XPM picture")),
    (b"FLIF", Kind("a FLIF picture")),
    (b"\x1aE\xdf\xa3", _VIDEO),
    (b"FLV\1", _VIDEO),
    (b"\0\0\1\xba", _VIDEO),
    (b"\0\0\1\xb3", _VIDEO),
    (b"0&\xb2u", _VIDEO),
    (b"OggS", Kind("an Ogg sound or video file", fix=FRAME)),
    (b"ID3", _SOUND),
    (b"fLaC", _SOUND),
    (b"PK\3\4", Kind("a ZIP archive (or an Office document)", fix=_ARCHIVE_FIX)),
    (b"\x1f\x8b", Kind("a gzip archive", fix=_ARCHIVE_FIX)),
    (b"BZh", Kind("a bzip2 archive", fix=_ARCHIVE_FIX)),
    (b"\xfd7zXZ", Kind("an xz archive", fix=_ARCHIVE_FIX)),
    (b"(\xb5/\xfd", Kind("a Zstandard archive", fix=_ARCHIVE_FIX)),
    (b"7z\xbc\xaf", Kind("a 7z archive", fix=_ARCHIVE_FIX)),
    (b"Rar!", Kind("a RAR archive", fix=_ARCHIVE_FIX)),
    (b"\0\5\x16\7", Kind("a macOS companion file (AppleDouble)", fix="give the file without '._' in front")),
    (b"\x93NUMPY", Kind("a NumPy array file", fix="load it and give the array, or save it as PNG")),
    (b"GGUF", Kind("a GGUF model", fix="give a picture; models go to -m")),
    (b"\x7fELF", Kind("a program", fix="give a picture")),
    (b"MZ", Kind("a program", fix="give a picture")),
    (b"SQLite format 3", Kind("a SQLite database", fix="give a picture")),
    (b"version https://git-lfs", Kind("a git-lfs pointer, not the picture itself", fix="get it: git lfs pull")),
    (b"version https://hawser", Kind("a git-lfs pointer, not the picture itself", fix="get it: git lfs pull")),
    (b"/annex/objects/", Kind("a git-annex pointer, not the picture itself", fix="get it: git annex get")),
)
_TEXTS = (b"%!PS", b"#?RADIANCE", b"SIMPLE  =", b"version https://", b"/annex/", b"/* XPM */")
"""Beginnings of files that are text; the others are not met in front of text but by chance."""
_RIFF = {b"WEBP": WEBP, b"AVI ": _VIDEO, b"WAVE": _SOUND, b"ACON": Kind("an animated cursor (ANI)")}
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1", b"miaf")
_MARKUP = (
    (
        re.compile(rb"<svg[\s>]", re.I),
        Kind("an SVG drawing", fix="convert it: rsvg-convert DRAWING.svg -o drawing.png"),
    ),
    (
        re.compile(rb"<(!doctype\s+html|html|head|body)\b", re.I),
        Kind("a web page (HTML)", fix="download the picture itself"),
    ),
)
_PNM = re.compile(rb"P[1-6]\s+[#\d]|P7\s+[#A-Z]|P[Ff]\s+\d")
_BASE64_PICTURE = re.compile(rb"data:image/|iVBORw0KGgo|/9j/[0-9A-Za-z+/]|R0lGOD|UklGR")


def kind_of(data: bytes, name: str = "") -> Kind | None:
    """What ``data`` (a whole file, or its first :data:`HEAD` bytes) is; None where nobody knows.

    ``name`` tells a camera's raw file from a TIFF. Read kinds and others differ by ``decoder``.
    """
    head = data[:HEAD]
    for find in (_by_container, _by_beginning, _by_place, _by_text):
        if (found := find(data if find is _by_container else head, name)) is not None:
            return found
    return None


def _by_container(data: bytes, name: str) -> Kind | None:
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    if data[4:8] == b"ftyp":
        return _by_brand(data)
    if data[:4] in _TIFF_STARTS:
        raw = PurePath(name).suffix.lower() in _RAW_SUFFIXES or is_raw(data)
        return _RAW if raw else TIFF
    return None


def _by_brand(data: bytes) -> Kind:
    """An ISO base media file, by its major brand and then by those it is compatible with (ISO/IEC 14496-12)."""
    size = min(int.from_bytes(data[:4], "big"), 256)
    major, others = data[8:12], [data[at : at + 4] for at in range(16, size, 4)]
    if major == b"crx ":
        return _RAW
    for one in (major, *others) if major in (*_AVIF_BRANDS, *_HEIC_BRANDS) else ():
        if one in _AVIF_BRANDS:
            return AVIF
        if one in _HEIC_BRANDS and one not in (b"mif1", b"msf1", b"miaf"):
            return HEIC
    return HEIC if major in _HEIC_BRANDS else _VIDEO


def _by_beginning(head: bytes, _: str) -> Kind | None:
    found = (kind for start, kind in _BEGINNINGS if head.startswith(start) and _plausible(head, start, kind))
    return next(found, None)


def _plausible(head: bytes, start: bytes, kind: Kind) -> bool:
    """A few letters or zeros are no proof: a sentence may begin with them, or a picture without a mark of its own."""
    if start in (b"\0\0\1\0", b"\0\0\2\0"):  # then comes how many pictures are inside, and of each a reserved zero
        return head[4:6] != b"\0\0" and head[9:10] in (b"", b"\0")
    if kind.decoder and kind is not BMP:
        return True
    return start.startswith(_TEXTS) or not _is_text(head)


def _by_place(head: bytes, _: str) -> Kind | None:
    if b"%PDF-" in head[:1024]:
        return Kind("a PDF document", fix="convert a page: pdftoppm -png -singlefile DOCUMENT.pdf page")
    if head[128:132] == b"DICM":
        return Kind("a DICOM picture", fix="convert it: dcmj2pnm PICTURE picture.png")
    if head[257:262] == b"ustar":
        return Kind("a tar archive", fix=_ARCHIVE_FIX)
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip") and not _is_text(head):
        return _VIDEO
    if _PNM.match(head):
        return Kind("a PNM picture")
    if head[40:44] == b" EMF":
        return Kind("a Windows metafile (EMF)")
    if head[:1] == b"\n" and head[1:2] in b"\0\2\3\4\5" and head[2:3] == b"\1" and head[3:4] in b"\1\2\4\x08":
        return Kind("a PCX picture")
    if _is_targa(head):
        return Kind("a Targa picture (TGA)")
    if head and not head.strip(b"\0"):
        return Kind("a file of zeros, as an interrupted download leaves it", fix=AGAIN)
    return None


def _is_targa(head: bytes) -> bool:
    """Whether a file has the header of a Targa, which has no mark: its fields have few values (TGA 2.0, section 3)."""
    if len(head) < 18:
        return False
    table, kind, entries, bits = head[1], head[2], int.from_bytes(head[5:7], "little"), head[7]
    of_table = table == 1 and kind in (1, 9) and entries > 0 and bits in (15, 16, 24, 32)
    depths = {1: (8, 16), 2: (15, 16, 24, 32), 3: (8, 16)}.get(kind & 7, ()) if kind < 16 else ()
    has_pixels = head[12:14] != b"\0\0" and head[14:16] != b"\0\0" and head[16] in depths and head[17] < 64
    return has_pixels and (of_table or (table == 0 and kind in (2, 3, 10, 11) and entries == 0))


def _by_text(head: bytes, _: str) -> Kind | None:
    if not _is_text(head):
        return None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        found = [(match.start(), kind) for pattern, kind in _MARKUP if (match := pattern.search(text))]
        return min(found, key=lambda one: one[0], default=(0, Kind("an XML document", fix="give a picture")))[1]
    if _BASE64_PICTURE.match(text.lstrip(b"\"'")):
        return Kind("text that holds a picture in base64", fix="decode it (base64 -d), or give it as a data URL")
    if re.match(rb"(/\*.*?\*/\s*)?#define \w+_width\s", text, re.DOTALL):
        return Kind("an XBM picture")
    if text.startswith((b"{", b"[")):
        return Kind("a JSON text", fix="give a picture")
    if text.startswith((b"http://", b"https://")):
        return Kind("text with a web address", fix="download the picture itself")
    return None


def _is_text(head: bytes) -> bool:
    controls = set(head) & (set(range(32)) - {9, 10, 12, 13, 27})
    return bool(head) and not controls
