"""What the model can't see of a picture is said; what it sees stays the reference's."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from llava_edge.runtime.errors import ImageError
from llava_edge.runtime.pictures.picture import load_picture
from PIL import Image
from transformers.image_transforms import convert_to_rgb

SMOOTH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 15, 3), np.uint8)).resize((150, 100))
STEPS = np.arange(600, dtype=np.uint16).reshape(20, 30)


def written(kind: str, image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def deep_tiff(order: str) -> bytes:
    mode, pixels = ("I;16", "<u2") if order == "<" else ("I;16B", ">u2")
    return written("TIFF", Image.frombytes(mode, (30, 20), (STEPS * 100).astype(pixels).tobytes()))


CLIPPED = {
    "16-bit PNG": (written("PNG", Image.fromarray(STEPS * 100)), "a 16-bit picture and was clipped"),
    "16-bit TIFF": (deep_tiff("<"), "a 16-bit picture and was clipped"),
    "16-bit TIFF, big-endian": (deep_tiff(">"), "a 16-bit picture and was clipped"),
    "12 bits in 16": (written("PNG", Image.fromarray(STEPS * 6)), "a 16-bit picture and was clipped"),
    "32-bit TIFF": (written("TIFF", Image.fromarray(STEPS.astype(np.int32))), "32 bits a pixel and was clipped"),
    "floats": (written("TIFF", Image.fromarray(STEPS.astype(np.float32))), "32 bits a pixel and was clipped"),
    "floats below 0": (written("TIFF", Image.fromarray(STEPS / np.float32(-9))), "32 bits a pixel and was clipped"),
    "floats up to 1": (written("TIFF", Image.fromarray(STEPS / np.float32(600))), "brightness from 0 to 1"),
}


@pytest.mark.parametrize("case", CLIPPED)
def test_deep_pictures_are_clipped_as_in_the_reference_and_said_to_be(case: str) -> None:
    data, said = CLIPPED[case]
    picture = load_picture(data)
    assert said in picture.warnings[0]
    assert "as in transformers" in picture.warnings[0]
    if "big-endian" not in case:  # which transformers refuses
        with Image.open(io.BytesIO(data)) as opened:
            assert np.array_equal(np.asarray(picture.image), convert_to_rgb(opened, return_numpy=True))


ENDS = {
    "below": (-5.0, -300.0, {"black"}),
    "above": (300.0, 400.0, {"white"}),
    "both": (-5.0, 400.0, {"black", "white"}),
    "infinite": (float("-inf"), float("inf"), {"black", "white"}),
    "no number": (3.0, float("nan"), {"black"}),
    "no number at all": (float("nan"), float("nan"), {"black"}),
    "no number, and above": (float("nan"), 300.0, {"black", "white"}),
}


@pytest.mark.parametrize(("case", "mode"), [*((case, "F") for case in ENDS), *((case, "I") for case in list(ENDS)[:3])])
def test_what_is_lost_became_what_is_said(case: str, mode: str) -> None:
    """The colours that the sentence names are those of the pixels that were out of range."""
    *values, said = ENDS[case]
    numbers = np.array([values], np.float32 if mode == "F" else np.int32)
    picture = load_picture(written("TIFF", Image.fromarray(numbers)))
    out = np.array([not 0 <= one <= 255 for one in values])
    became = {{0: "black", 255: "white"}[int(one)] for one in np.asarray(picture.image)[0, out, 0]}
    assert became == said
    assert {word for word in ("black", "white") if f"became {word}" in picture.warnings[0]} == said


def with_a_dot() -> Image.Image:
    image = Image.new("RGB", (90, 90), "white")
    image.putpixel((50, 50), (0, 0, 0))
    return image


QUIET = {
    "16 bits that need but 8": written("PNG", Image.fromarray(STEPS // 3)),
    "grey": written("PNG", SMOOTH.convert("L")),
    "two colours": written("PNG", SMOOTH.convert("1")),
    "palette": written("PNG", SMOOTH.quantize(16)),
    "CMYK": written("JPEG", SMOOTH.convert("CMYK")),
    "grey with alpha": written("PNG", SMOOTH.convert("LA")),
    "one other pixel": written("PNG", with_a_dot()),
}


@pytest.mark.parametrize("case", QUIET)
def test_nothing_is_said_of_what_loses_nothing(case: str) -> None:
    assert load_picture(QUIET[case]).warnings == ()


def test_sixteen_bit_colours_are_scaled_by_pillow() -> None:
    """A PNG of 16 bits a channel, laid out by hand; the high bytes are what is left."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    values = np.random.default_rng(0).integers(0, 65536, (4, 5, 3), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    picture = load_picture(data)
    assert np.array_equal(np.asarray(picture.image), values >> 8)
    assert picture.warnings == ()


def clear(colour: str) -> Image.Image:
    """Something drawn in ``colour`` on a transparent ground."""
    image = Image.new("RGBA", (30, 20), (255, 255, 255, 0))
    image.paste(Image.new("RGBA", (10, 10), colour), (5, 5))
    return image


def grey_transparent() -> bytes:
    return written("PNG", Image.new("L", (9, 9), 255), transparency=255)


ONE_COLOUR = {
    "white": (written("PNG", Image.new("RGB", (9, 9), "white")), "RGB (255, 255, 255)."),
    "black": (written("JPEG", Image.new("RGB", (90, 90))), "RGB (0, 0, 0)."),
    "grey": (written("PNG", Image.new("L", (9, 9), 77)), "RGB (77, 77, 77)."),
    "white on clear": (written("PNG", clear("white")), "transparent parts were laid on white"),
    "clear alone": (written("WEBP", Image.new("RGBA", (9, 9), (7, 8, 9, 0)), lossless=True), "laid on white"),
    "clear grey": (grey_transparent(), "laid on white"),
    "almost": (written("PNG", Image.fromarray(np.eye(9, dtype=np.uint8) + 200)), "RGB (200"),
}


@pytest.mark.parametrize("case", ONE_COLOUR)
def test_one_colour_is_said(case: str, tmp_path: Path) -> None:
    data, said = ONE_COLOUR[case]
    (tmp_path / "flat.png").write_bytes(data)
    (warning,) = load_picture(tmp_path / "flat.png").warnings
    assert warning.startswith(f"{tmp_path / 'flat.png'} shows one colour")
    assert said in warning


def test_black_on_clear_is_seen() -> None:
    assert load_picture(written("PNG", clear("black"))).warnings == ()


MODES = [
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
]


@pytest.mark.parametrize("mode", [*MODES, "I;16B", "I;16L"])
def test_every_mode_of_pillow_becomes_a_picture(mode: str) -> None:
    picture = load_picture(Image.new(mode, (7, 5)))
    assert (picture.image.mode, picture.size, picture.mode) == ("RGB", (7, 5), mode)


def test_colours_without_a_conversion_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("conversion not supported")

    monkeypatch.setattr(Image.Image, "convert", refuse)
    with pytest.raises(ImageError, match="got HSV; save it as RGB"):
        load_picture(Image.new("HSV", (7, 5)))
