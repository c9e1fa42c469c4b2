"""What surrounds the pixels of a file never condemns them, and a file that ends early is judged by what it lost."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from llava_edge.runtime.errors import ImageError
from llava_edge.runtime.pictures.files.orientation import orientation_of
from llava_edge.runtime.pictures.picture import load_picture, picture_size
from PIL import Image, ImageOps, PngImagePlugin

SMOOTH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 15, 3), np.uint8)).resize((150, 100))
JUNK = b"\x93\0\xff junk " * 20


def written(kind: str, image: Image.Image = SMOOTH, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> bytes:
    """As cameras write it: little-endian, the orientation behind another entry."""
    entries = struct.pack("<HHII", 0x0100, 4, 1, 150) + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"II*\0\x08\0\0\0\2\0" + entries + bytes(4)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def in_png(*chunks: bytes) -> bytes:
    """A PNG with chunks behind its header."""
    plain = written("PNG")
    return plain[:33] + b"".join(chunks) + plain[33:]


def in_jpeg(*segments: bytes) -> bytes:
    plain = written("JPEG", quality=95)
    return plain[:2] + b"".join(segments) + plain[2:]


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def in_webp(**extra: bytes) -> bytes:
    return written("WEBP", lossless=True, **extra)


def broken_rational(orientation: int) -> bytes:
    """An entry whose number no TIFF can hold once it is written anew: Pillow's exif_transpose ends there."""
    block = b"II*\0\x08\0\0\0\2\0" + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    block += struct.pack("<HHII", 0x011A, 10, 1, 38) + bytes(4)  # a signed fraction where an unsigned one belongs
    return block + struct.pack("<ii", -5, 7)


def tiff_with(tag: int, kind: int, count: int, value: int) -> bytes:
    """A TIFF with one more entry in its directory, which stands at the file's end."""
    plain = written("TIFF")
    (start,) = struct.unpack_from("<I", plain, 4)
    (length,) = struct.unpack_from("<H", plain, start)
    entries = [plain[start + 2 + 12 * n : start + 14 + 12 * n] for n in range(length)]
    entries = sorted([*entries, struct.pack("<HHII", tag, kind, count, value)], key=lambda one: one[:2][::-1])
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return plain[:4] + struct.pack("<I", len(plain)) + plain[8:] + directory


SOUND = {"JPEG": written("JPEG", quality=95), "PNG": written("PNG"), "WEBP": in_webp(), "TIFF": written("TIFF")}
BOMB = zlib.compress(bytes(3_000_000))
DAMAGED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "EXIF that can't be written anew": ("JPEG", lambda: in_jpeg(segment(0xE1, b"Exif\0\0" + broken_rational(1)))),
    "EXIF of junk": ("JPEG", lambda: in_jpeg(segment(0xE1, b"Exif\0\0" + JUNK))),
    "EXIF cut off": ("JPEG", lambda: in_jpeg(segment(0xE1, b"Exif\0\0" + exif(1)[:20]))),
    "EXIF that points beyond itself": ("JPEG", lambda: in_jpeg(segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"))),
    "a segment shorter than it says": ("JPEG", lambda: in_jpeg(b"\xff\xe5\x00\x05abcdefgh")),
    "a JFIF header cut off": ("JPEG", lambda: in_jpeg(segment(0xE0, b"JF"))),
    "an Adobe segment cut off": ("JPEG", lambda: in_jpeg(segment(0xEE, b"Adobe\0"))),
    "a multi-picture index of junk": ("JPEG", lambda: in_jpeg(segment(0xE2, b"MPF\0" + JUNK))),
    "Photoshop's resources cut off": ("JPEG", lambda: in_jpeg(segment(0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\0"))),
    "a JPEG's colour profile cut off": ("JPEG", lambda: in_jpeg(segment(0xE2, b"ICC_PROFILE\0\x01\x05" + JUNK))),
    "a text bomb (zTXt)": ("PNG", lambda: in_png(chunk(b"zTXt", b"Comment\0\0" + BOMB))),
    "a text bomb (iTXt)": ("PNG", lambda: in_png(chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB))),
    "seventy million characters of text": (
        "PNG",
        lambda: in_png(*[chunk(b"zTXt", b"%d\0\0" % n + zlib.compress(bytes(1_000_000), 9)) for n in range(70)]),
    ),
    "text of an unknown compression": ("PNG", lambda: in_png(chunk(b"zTXt", b"Comment\0\7" + JUNK))),
    "text without a keyword's end": ("PNG", lambda: in_png(chunk(b"iTXt", b"Comment"))),
    "a PNG's colour profile cut off": ("PNG", lambda: in_png(chunk(b"iCCP", b"sRGB\0\0" + BOMB[:40]))),
    "a colour profile that is a bomb": ("PNG", lambda: in_png(chunk(b"iCCP", b"sRGB\0\0" + BOMB))),
    "a colour profile of an unknown compression": ("PNG", lambda: in_png(chunk(b"iCCP", b"sRGB\0\1" + JUNK))),
    "an empty chunk (pHYs)": ("PNG", lambda: in_png(chunk(b"pHYs", b""), chunk(b"gAMA", b""), chunk(b"cHRM", b"1"))),
    "an EXIF chunk of junk": ("PNG", lambda: in_png(chunk(b"eXIf", JUNK))),
    "EXIF in text, of no digits": ("PNG", lambda: in_png(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 9\nxyz\n"))),
    "a wrong checksum": ("PNG", lambda: in_png(chunk(b"tEXt", b"a\0b")[:-1] + b"\x99")),
    "a length beyond the file": ("PNG", lambda: in_png(b"\x7f\xff\xff\xfftEXtComment\0hello")),
    "a control chunk of an animation, cut off": ("PNG", lambda: in_png(chunk(b"acTL", b"\0"), chunk(b"fcTL", b"\0"))),
    "an EXIF chunk of junk in a WebP": ("WEBP", lambda: in_webp(exif=b"Exif\0\0" + JUNK)),
    "EXIF in a WebP that can't be written anew": ("WEBP", lambda: in_webp(exif=b"Exif\0\0" + broken_rational(1))),
    "a WebP's colour profile of junk": ("WEBP", lambda: in_webp(icc_profile=JUNK)),
    "XMP that is no text": ("WEBP", lambda: in_webp(xmp=JUNK)),
    "a resolution that can't be written anew": ("TIFF", lambda: tiff_with(0x011A, 10, 1, 8)),
    "a profile that points beyond the file": ("TIFF", lambda: tiff_with(34675, 7, 4000, 2**31)),
    "a description of four gigabytes": ("TIFF", lambda: tiff_with(270, 2, 2**32 - 1, 8)),
    "an EXIF directory beyond the file": ("TIFF", lambda: tiff_with(34665, 4, 1, 2**30)),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_surroundings_never_condemn_a_picture(case: str) -> None:
    kind, damage = DAMAGED[case]
    with Image.open(io.BytesIO(SOUND[kind])) as sound:
        expected = np.asarray(sound.convert("RGB"))
    picture = load_picture(damage())
    assert np.array_equal(np.asarray(picture.image), expected)
    assert picture.warnings == ()
    assert picture_size(damage()) == picture.size


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'
TURNED: dict[str, Callable[[int], bytes]] = {
    "JPEG": lambda way: in_jpeg(segment(0xE1, b"Exif\0\0" + exif(way))),
    "JPEG with XMP": lambda way: in_jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP % way)),
    "JPEG with a broken entry beside": lambda way: in_jpeg(segment(0xE1, b"Exif\0\0" + broken_rational(way))),
    "JPEG with EXIF cut behind it": lambda way: in_jpeg(segment(0xE1, b"Exif\0\0" + exif(way)[:-4])),
    "PNG": lambda way: in_png(chunk(b"eXIf", exif(way))),
    "PNG with it behind the pixels": lambda way: written("PNG")[:-12] + chunk(b"eXIf", exif(way)) + chunk(b"IEND", b""),
    "PNG with it in text": lambda way: in_png(
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  38\n" + exif(way).hex().encode()))
    ),
    "PNG with XMP": lambda way: in_png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % way)),
    "WebP": lambda way: in_webp(exif=b"Exif\0\0" + exif(way)),
    "WebP with XMP": lambda way: in_webp(xmp=XMP % way),
    "TIFF": lambda way: tiff_with(0x0112, 3, 1, way),
}


@pytest.mark.parametrize("way", range(1, 9))
@pytest.mark.parametrize("case", TURNED)
def test_the_way_up_is_read_wherever_it_stands(case: str, way: int) -> None:
    data = TURNED[case](way)
    with Image.open(io.BytesIO(SOUND[case.split()[0].upper()])) as sound:
        plain = sound.convert("RGB")
    stated = plain.getexif()
    stated[0x0112] = way
    expected = np.asarray(ImageOps.exif_transpose(plain))
    picture = load_picture(data)
    assert np.array_equal(np.asarray(picture.image), expected)
    assert picture_size(data) == picture.size


@pytest.mark.parametrize("way", range(1, 9))
def test_an_avifs_way_up_is_part_of_the_format(way: int) -> None:
    stated = Image.Exif()
    stated[0x0112] = way
    data = written("AVIF", exif=stated)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(np.asarray(load_picture(data).image), expected)
    assert picture_size(data) == expected.shape[1::-1]


def test_orientation_is_what_pillow_reads() -> None:
    for way in range(1, 9):
        for order in "<>":
            head = b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08"
            block = head + struct.pack(order + "HHHIHHI", 1, 0x0112, 3, 1, way, 0, 0)
            known = Image.Exif()
            known.load(b"Exif\0\0" + block)
            assert orientation_of(b"Exif\0\0" + block) == known[0x0112] == way
    assert [orientation_of(one) for one in (b"", b"II", JUNK, exif(0), exif(9))] == [1] * 5


def test_a_pillow_image_with_broken_exif_is_taken() -> None:
    with Image.open(io.BytesIO(in_jpeg(segment(0xE1, b"Exif\0\0" + broken_rational(6))))) as opened:
        assert load_picture(opened).size == (100, 150)


def test_pillow_images_warn_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    with Image.open(io.BytesIO(in_jpeg(segment(0xE1, b"Exif\0\0" + exif(6)[:-8])))) as opened:
        recwarn.clear()
        load_picture(opened)
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_damaged_exif_in_a_media_file(kind: str) -> None:
    """Both formats turn pictures by a property of their own."""
    heif, file = pytest.importorskip("pillow_heif"), io.BytesIO()
    stated = Image.Exif()
    stated[0x0112], stated[0x010F] = 6, "maker " * 9
    if kind == "HEIF":
        heif.from_pillow(SMOOTH).save(file, exif=stated.tobytes())
    data = file.getvalue() or written("AVIF", exif=stated)
    at = data.rfind(b"MM\0*")
    damaged = data[:at] + b"\xff" * 8 + data[at + 8 :]
    assert at > 0
    sound, picture = load_picture(data), load_picture(damaged)
    assert sound.size == picture.size == picture_size(damaged) == (100, 150)
    assert np.array_equal(np.asarray(picture.image), np.asarray(sound.image))


# --- files that end early

NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (100, 150, 3), np.uint8))
PAGE = Image.new("RGB", (150, 100), "white")
PAGE.paste(SMOOTH.crop((0, 0, 150, 20)), (0, 0))
KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "JPEG": ("JPEG", {}),
    "progressive JPEG": ("JPEG", {"progressive": True}),
    "JPEG with restarts": ("JPEG", {"restart_marker_blocks": 3}),
    "JPEG of full colour": ("JPEG", {"subsampling": 0, "quality": 98}),
    "PNG": ("PNG", {}),
    "WebP": ("WEBP", {}),
    "lossless WebP": ("WEBP", {"lossless": True}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image", [SMOOTH, NOISE], ids=["smooth", "noise"])
def test_a_cut_file_is_judged_by_what_is_missing(kind: str, image: Image.Image) -> None:
    whole = written(KINDS[kind][0], image, **KINDS[kind][1])
    expected = np.asarray(load_picture(whole).image).astype(int)
    assert load_picture(whole).warnings == ()
    picture = load_picture(whole[:-10])
    assert "cut short" in picture.warnings[0]
    same = np.abs(np.asarray(picture.image) - expected).max(axis=2) <= (40 if "progressive" in kind else 0)
    assert same.mean() > 0.95
    for share in (2, 4):
        with pytest.raises(ImageError, match=r"a damaged one .*missing"):
            load_picture(whole[: len(whole) // share])


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "JPEG of full colour", "PNG"])
def test_the_last_bytes_of_a_page_that_ends_white(kind: str) -> None:
    """Few bytes are many rows there."""
    assert "cut short" in load_picture(written(KINDS[kind][0], PAGE, **KINDS[kind][1])[:-10]).warnings[0]


@pytest.mark.parametrize("kind", ["JPEG", "JPEG with restarts", "PNG", "lossless WebP"])
def test_the_share_that_is_missing_is_said(kind: str) -> None:
    """Of noise, where all rows take the same number of bytes."""
    whole = written(KINDS[kind][0], NOISE, **KINDS[kind][1])
    shares = []
    for share in (0.05, 0.15, 0.2):
        (warning,) = load_picture(whole[: round(len(whole) * (1 - share))]).warnings
        shares.append(int(warning.split("%")[0].split()[-1]) / 100 - share)
    assert max(map(abs, shares)) <= 0.04


def test_a_cut_interlaced_png_is_refused() -> None:
    """Pillow writes none, so this one is laid out by hand: of one pass, 8 x 8 pixels of grey are seven passes."""
    sizes = [(1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4)]
    rows = b"".join((b"\0" + bytes(range(10, 10 + width))) * height for width, height in sizes)
    stream = zlib.compress(rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1))
    start = b"\x89PNG\r\n\x1a\n" + header
    assert load_picture(start + chunk(b"IDAT", stream) + chunk(b"IEND", b"")).warnings == ()
    assert "no pixel is missing" in load_picture(start + chunk(b"IDAT", stream)).warnings[0]
    with pytest.raises(ImageError, match="damaged"):
        load_picture(start + chunk(b"IDAT", stream)[:-24])


def test_pixels_keep_their_cap_in_a_cut_file() -> None:
    cut = written("PNG", Image.new("RGB", (300, 300)))[:-13]
    with pytest.raises(ImageError, match="got 300x300"):
        load_picture(cut, max_pixels=80_000)


def test_text_before_the_pixels_is_no_exif() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "tiff:Orientation=6")
    assert load_picture(written("PNG", pnginfo=info)).size == (150, 100)
