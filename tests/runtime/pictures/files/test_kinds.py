"""Files under a picture's name are named by what they are; those that are read look as their own decoder has them."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from llava_edge.runtime.errors import ImageError
from llava_edge.runtime.pictures.files.kinds import kind_of
from llava_edge.runtime.pictures.picture import load_picture, picture_size
from PIL import Image

SMOOTH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 15, 3), np.uint8)).resize((150, 100))


def written(kind: str, image: Image.Image = SMOOTH, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    return file.getvalue()


def media(major: bytes, *others: bytes) -> bytes:
    brands = b"".join(others)
    return struct.pack(">I", 16 + len(brands)) + b"ftyp" + major + b"\0\0\2\0" + brands + bytes(200)


def raw_tiff(tag: int) -> bytes:
    return b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", tag, 4, 1, 1) + bytes(100)


FOREIGN: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG 2000": (lambda: written("JPEG2000"), "a JPEG 2000 picture"),
    "JPEG 2000 codestream": (lambda: written("JPEG2000", no_jp2=True), "a JPEG 2000 picture"),
    "JPEG XL": (lambda: b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "a JPEG XL picture"),
    "JPEG XL codestream": (lambda: b"\xff\x0a\xfa\x1f" + bytes(50), "a JPEG XL picture"),
    "ICO": (lambda: written("ICO"), "an icon file"),
    "CUR": (lambda: b"\0\0\2\0" + written("ICO")[4:], "a cursor file"),
    "TGA": (lambda: written("TGA"), "a Targa picture"),
    "TGA, run lengths": (lambda: written("TGA", compression="tga_rle"), "a Targa picture"),
    "TGA, palette": (lambda: written("TGA", SMOOTH.convert("P")), "a Targa picture"),
    "TGA, palette, packed": (
        lambda: written("TGA", SMOOTH.convert("P"), compression="tga_rle"),
        "a Targa picture",
    ),
    "TGA, grey": (lambda: written("TGA", SMOOTH.convert("L")), "a Targa picture"),
    "TGA, transparent": (lambda: written("TGA", SMOOTH.convert("RGBA")), "a Targa picture"),
    "TGA with a comment": (lambda: written("TGA", id_section=b"made by me"), "a Targa picture"),
    "PCX": (lambda: written("PCX"), "a PCX picture"),
    "SGI": (lambda: written("SGI"), "an SGI picture"),
    "XBM": (lambda: written("XBM", SMOOTH.convert("1")), "an XBM picture"),
    "XPM": (lambda: b"/* XPM */\nstatic char *a[] = {", "an XPM picture"),
    "PBM": (lambda: written("PPM", SMOOTH.convert("1")), "a PNM picture"),
    "PFM": (lambda: written("PPM", SMOOTH.convert("F")), "a PNM picture"),
    "EMF": (lambda: b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(40), "a Windows metafile"),
    "ICNS": (lambda: written("ICNS", SMOOTH.resize((128, 128))), "an icon file"),
    "PDF": (lambda: written("PDF"), "a PDF document"),
    "PDF behind white space": (lambda: b"\r\n\r\n" + written("PDF"), "a PDF document"),
    "EPS": (lambda: written("EPS"), "a PostScript document"),
    "PPM": (lambda: written("PPM"), "a PNM picture"),
    "QOI": (lambda: written("QOI"), "a QOI picture"),
    "DDS": (lambda: written("DDS"), "a DDS texture"),
    "PSD": (lambda: b"8BPS\0\1" + bytes(40), "a Photoshop document"),
    "XCF": (lambda: b"gimp xcf v011\0" + bytes(40), "a GIMP document"),
    "SVG": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    "SVG behind a comment": (
        lambda: b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- me -->\n<svg width='9'/>",
        "an SVG drawing",
    ),
    "web page": (lambda: b"\n<!DOCTYPE html>\n<html><body><svg></svg></body></html>", "a web page"),
    "web page in capitals": (lambda: b"<HTML><HEAD><TITLE>403 Forbidden</TITLE>", "a web page"),
    "XML": (lambda: b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
    "JSON": (lambda: b'{"error": "not found"}', "a JSON text"),
    "base64": (lambda: b"iVBORw0KGgoAAAANSUhEUgAA", "text that holds a picture in base64"),
    "data URL": (lambda: b"data:image/png;base64,iVBORw0KGgo", "text that holds a picture in base64"),
    "address": (lambda: b"https://example.org/a.png\n", "text with a web address"),
    "git-lfs": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "a git-lfs pointer"),
    "MP4": (lambda: media(b"isom", b"iso2", b"avc1", b"mp41"), "a video"),
    "QuickTime": (lambda: media(b"qt  ", b"qt  "), "a video"),
    "QuickTime without a type": (lambda: struct.pack(">I", 8) + b"wide" + bytes(60), "a video"),
    "3GP": (lambda: media(b"3gp4", b"3gp4"), "a video"),
    "WebM": (lambda: b"\x1aE\xdf\xa3" + bytes(50), "a video"),
    "AVI": (lambda: b"RIFF\x40\0\0\0AVI LIST" + bytes(50), "a video"),
    "WAV": (lambda: b"RIFF\x40\0\0\0WAVEfmt " + bytes(50), "a sound file"),
    "CR2": (lambda: b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "a camera's RAW file"),
    "CR3": (lambda: media(b"crx ", b"crx ", b"isom"), "a camera's RAW file"),
    "DNG": (lambda: raw_tiff(50706), "a camera's RAW file"),
    "NEF": (lambda: raw_tiff(254), "a camera's RAW file"),
    "RAF": (lambda: b"FUJIFILMCCD-RAW 0201" + bytes(50), "a camera's RAW file"),
    "RW2": (lambda: b"IIU\0\x18\0\0\0" + bytes(50), "a camera's RAW file"),
    "Office document": (zipped, "a ZIP archive"),
    "gzip": (lambda: gzip.compress(b"<svg/>", mtime=0), "a gzip archive"),
    "companion of macOS": (lambda: b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(50), "AppleDouble"),
    "NumPy": (lambda: b"\x93NUMPY\1\0" + bytes(50), "a NumPy array file"),
    "model": (lambda: b"GGUF\3\0\0\0" + bytes(50), "a GGUF model"),
    "DICOM": (lambda: bytes(128) + b"DICM" + bytes(50), "a DICOM picture"),
    "zeros": (lambda: bytes(10_000), "a file of zeros"),
    "nothing": (lambda: b"", "an empty file"),
    "text that begins as a BMP": (lambda: b"BMW is not a picture, is it?", "begins with b'BMW is n'"),
    "text that begins as a program": (lambda: b"MZ is short for Mark Zbikowski", "begins with b'MZ is sh'"),
}


@pytest.mark.parametrize("case", FOREIGN)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_what_is_no_picture_is_named(case: str, suffix: str, tmp_path: Path) -> None:
    make, said = FOREIGN[case]
    path = tmp_path / f"photo.{suffix}"
    path.write_bytes(make())
    with pytest.raises(ImageError) as caught:
        load_picture(path)
    error = caught.value
    assert said in error.got
    assert error.fix
    assert "\n" not in str(error)
    with pytest.raises(ImageError, match=r"photo\."):
        picture_size(path)
    with pytest.raises(ImageError, match="picture"):
        load_picture(make())


def test_a_raw_file_is_told_by_its_name_too(tmp_path: Path) -> None:
    """Some cameras' first directory is that of an ordinary TIFF."""
    path = tmp_path / "DSC_0001.NEF"
    path.write_bytes(written("TIFF"))
    with pytest.raises(ImageError, match="RAW"):
        load_picture(path)


def test_a_large_video_is_named_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "clip.jpg"
    with path.open("wb") as file:
        file.write(media(b"isom", b"mp41"))
        file.truncate(20 * 2**30)
    with pytest.raises(ImageError, match="a video"):
        load_picture(path)
    with path.open("wb") as file:
        file.write(written("PNG"))
        file.truncate(20 * 2**30)
    with pytest.raises(ImageError, match="at most 1024 MiB"):
        load_picture(path)


@pytest.mark.parametrize("size", [(150, 100), (1, 1), (33, 7)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("AVIF", {"quality": 95}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("TIFF", {"compression": "jpeg"}),
        ("TIFF", {"big_tiff": True}),
        ("WEBP", {}),
        ("GIF", {}),
    ],
)
def test_formats_are_read_as_pillow_reads_them(kind: str, options: dict[str, object], size: tuple[int, int]) -> None:
    data = written(kind, SMOOTH.resize(size), **options)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("RGB"))
    picture = load_picture(data)
    assert np.array_equal(np.asarray(picture.image), expected)
    assert picture_size(data) == picture.size == size


@pytest.mark.parametrize("way", [1, 3, 6, 8])
def test_heic_is_read_where_its_package_is(way: int) -> None:
    heif = pytest.importorskip("pillow_heif")
    file, stated = io.BytesIO(), Image.Exif()
    stated[0x0112] = way
    heif.from_pillow(SMOOTH).save(file, exif=stated.tobytes(), quality=-1)
    expected = np.asarray(heif.open_heif(file.getvalue()).to_pillow().convert("RGB"))
    picture = load_picture(file.getvalue())
    assert np.array_equal(np.asarray(picture.image), expected)
    assert picture_size(file.getvalue()) == picture.size == ((150, 100) if way < 5 else (100, 150))
    assert kind_of(file.getvalue()).name == "a HEIC picture"  # type: ignore[union-attr]
    with pytest.raises(ImageError, match=r"at most 0\.001 megapixels"):
        load_picture(file.getvalue(), max_pixels=1000)


@pytest.mark.parametrize("brands", [(b"heic", b"mif1"), (b"mif1", b"heic"), (b"mif1",), (b"heix", b"mif1")])
def test_heic_without_its_package_names_the_extra(brands: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"HEIC picture; got no such package; .*\"llava-edge\[heic\]\", or convert"):
        load_picture(media(*brands))


def test_avif_without_its_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import features

    monkeypatch.setattr(features, "check", lambda feature: feature != "avif")
    for data in (media(b"avif", b"mif1"), media(b"mif1", b"avif", b"miaf")):
        with pytest.raises(ImageError, match=r"install Pillow 11\.3"):
            load_picture(data)


def test_opening_pictures_registers_nothing_and_warns_of_nothing() -> None:
    """Formats that Pillow knows are the application's business, and its warnings are never ours."""
    program = (
        "import io, sys, warnings\nwarnings.simplefilter('error')\nimport PIL.Image\n"
        "from llava_edge.runtime.pictures.picture import load_picture\n"
        "load_picture(bytes.fromhex(sys.stdin.read()))\nPIL.Image.init()\nassert 'HEIF' not in PIL.Image.OPEN\n"
    )
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(SMOOTH).save(file)
    subprocess.run([sys.executable, "-c", program], input=file.getvalue().hex(), text=True, check=True)


SEVERAL = {
    "GIF": "is an animation; only its first frame",
    "PNG": "is an animation of 2 frames; only the first",
    "WEBP": "is an animation of 2 frames; only the first",
    "AVIF": "is an animation of 2 frames; only the first",
    "TIFF": "has 2 pages; only the first",
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_of_several_pictures_the_first_is_taken_and_said_to_be(kind: str) -> None:
    data = written(kind, save_all=True, append_images=[SMOOTH.rotate(180)])
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("RGB"))
    picture = load_picture(data)
    assert np.array_equal(np.asarray(picture.image), expected)
    (warning,) = picture.warnings
    assert warning.startswith(f"picture {SEVERAL[kind]}")


def test_a_phones_second_picture_and_a_thumbnail_are_no_pages() -> None:
    assert load_picture(written("MPO", save_all=True, append_images=[SMOOTH])).warnings == ()
    data = written("TIFF", save_all=True, append_images=[SMOOTH.resize((15, 10))])
    with Image.open(io.BytesIO(data)) as opened:
        opened.seek(1)
        second = opened._frame_pos[1]  # type: ignore[attr-defined]
    at = data.index(struct.pack("<HHII", 256, 4, 1, 15), second) if struct.pack("<HHII", 256, 4, 1, 15) in data else -1
    at = at if at >= 0 else data.index(struct.pack("<HHIHH", 256, 3, 1, 15, 0), second)
    small = data[:at] + struct.pack("<HHII", 254, 4, 1, 1) + data[at + 12 :]
    assert load_picture(small).warnings == ()


def test_damaged_frames_behind_the_first_are_nobodys_business() -> None:
    """Only a WebP's size says that something is missing."""
    for kind in ("GIF", "WEBP"):
        data = written(kind, save_all=True, append_images=[SMOOTH.rotate(90), SMOOTH])
        expected = np.asarray(load_picture(data).image)
        assert np.array_equal(np.asarray(load_picture(data[:-60]).image), expected)


SENTENCES = [
    "The free lunch",
    "get wide open",
    "a moov of",
    "ID3 tags are text",
    "OggS of the sea",
    "GGUF is a format",
    "BMW",
    "P1 is the first",
    "P6\nis not a picture",
    "MZ was a man",
    "icns and qoif",
    "DDS for all",
    "FLV\tone",
    "Rar! said he",
]


@pytest.mark.parametrize("text", SENTENCES)
def test_a_sentence_is_no_picture_video_or_archive(text: str) -> None:
    """Marks of four letters stand in front of text too."""
    assert kind_of(f"{text} and some more of it\n".encode()) is None


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((2**31, 2**31), "4,611,686,018,427 megapixels"),
        ((2**31 - 1, 9), "19,327 megapixels"),
        ((11000, 11000), "11000x11000"),
    ],
)
def test_sizes_beyond_all_measure_are_said_in_megapixels(size: tuple[int, int], said: str) -> None:
    data = bytearray(written("PNG"))
    data[16:24] = struct.pack(">II", *size)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    for read in (load_picture, picture_size):
        with pytest.raises(ImageError, match="at most 100 megapixels") as refused:
            read(bytes(data))
        assert refused.value.got == said
