"""Pictures from outside: converted as the reference converts them, refused in one line."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from llava_edge.runtime.errors import ImageError
from llava_edge.runtime.pictures.picture import load_picture
from PIL import Image
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import load_image


def noise(size: tuple[int, int], channels: int, seed: int = 0) -> np.ndarray:
    shape = (size[1], size[0]) if channels == 1 else (size[1], size[0], channels)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def palette_with_transparency() -> Image.Image:
    image = Image.fromarray(noise((20, 12), 3)).quantize(16)
    image.info["transparency"] = 3
    return image


def sixteen_bit() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 65536, (9, 14), np.uint16))


MODES = {
    "rgb": lambda: Image.fromarray(noise((20, 12), 3)),
    "grey": lambda: Image.fromarray(noise((20, 12), 1)),
    "bilevel": lambda: Image.fromarray(noise((20, 12), 1)).convert("1"),
    "palette": lambda: Image.fromarray(noise((20, 12), 3)).quantize(16),
    "palette with transparency": palette_with_transparency,
    "alpha": lambda: Image.fromarray(noise((20, 12), 4)),
    "grey with alpha": lambda: Image.fromarray(noise((20, 12), 4)).convert("LA"),
    "16-bit": sixteen_bit,
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_convert_as_the_reference_does(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    MODES[mode]().save(path)
    expected = convert_to_rgb(load_image(str(path)), return_numpy=True)
    with Image.open(path) as opened:
        expected_unloaded = convert_to_rgb(opened, return_numpy=True)
    got = np.asarray(load_picture(path).image)
    # load_image converts by itself in some releases; the processor's conversion is the target
    assert np.array_equal(got, expected_unloaded) or np.array_equal(got, expected)
    assert np.array_equal(got, expected_unloaded)


def test_cmyk_jpeg_converts_as_the_reference_does(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.fromarray(noise((20, 12), 4), "CMYK").save(path, quality=90)
    with Image.open(path) as opened:
        expected = convert_to_rgb(opened, return_numpy=True)
    assert np.array_equal(np.asarray(load_picture(path).image), expected)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif"])
def test_formats(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(noise((30, 20), 3)).save(path)
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB"))
    picture = load_picture(path)
    assert picture.size == (30, 20)
    assert np.array_equal(np.asarray(picture.image), expected)


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    red.save(path, save_all=True, append_images=[blue])
    assert load_picture(path).image.getpixel((0, 0)) == (254, 0, 0) or load_picture(path).image.getpixel((0, 0)) == (
        255,
        0,
        0,
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise((16, 8), 3)).save(path, exif=exif)
    expected = load_image(str(path))  # transformers turns pictures upright when it loads them
    picture = load_picture(path)
    assert picture.size == expected.size == ((16, 8) if orientation < 5 else (8, 16))
    assert np.array_equal(np.asarray(picture.image), np.asarray(expected.convert("RGB")))


def test_digest_knows_pixels_not_names(tmp_path: Path) -> None:
    image = Image.fromarray(noise((30, 20), 3))
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.bmp")
    changed = image.copy()
    changed.putpixel((29, 19), tuple(255 - value for value in image.getpixel((29, 19))))
    digests = [load_picture(one).digest for one in (tmp_path / "a.png", tmp_path / "b.bmp", image, changed)]
    assert digests[0] == digests[1] == digests[2] != digests[3]


@pytest.mark.parametrize("height", [1, 255, 256, 257, 700])
def test_digest_of_tall_pictures(height: int) -> None:
    """Whose rows are not copied all at once."""
    pixels = np.random.default_rng(height).integers(0, 256, (height, 5, 3), np.uint8)
    expected = hashlib.sha256(f"RGB 5x{height} ".encode() + pixels.tobytes()).hexdigest()
    assert load_picture(pixels).digest == expected


def test_digest_is_the_sha256_of_mode_size_and_pixels() -> None:
    image = Image.fromarray(noise((3, 2), 3))
    picture = load_picture(image)
    expected = hashlib.sha256(b"RGB 3x2 " + np.asarray(image).tobytes()).hexdigest()
    image.putpixel((0, 0), (1, 2, 3))  # the caller's own picture, which may change after it was handed in
    assert picture.digest == expected


def test_loading_hashes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda data=b"": (hashed.append(data), sha256(data))[1])
    picture = load_picture(Image.fromarray(noise((30, 20), 3)))
    assert picture.size == (30, 20)
    assert not hashed
    assert picture.digest == picture.digest
    assert len(hashed) == 1  # and once is enough


def test_a_picture_is_a_frozen_value() -> None:
    one, same, other = (load_picture(Image.fromarray(noise((30, 20), 3, seed))) for seed in (0, 0, 1))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    with pytest.raises(AttributeError):
        one.name = "renamed"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(one)) == one


def test_digest_tells_shapes_apart() -> None:
    flat = Image.new("RGB", (4, 9), "red"), Image.new("RGB", (9, 4), "red"), Image.new("RGB", (6, 6), "red")
    assert len({load_picture(one).digest for one in flat}) == 3


def test_bytes_and_pillow_images_are_taken_too() -> None:
    image = Image.fromarray(noise((30, 20), 3))
    file = io.BytesIO()
    image.save(file, "PNG")
    assert load_picture(file.getvalue()).digest == load_picture(image).digest


def png_header(width: int, height: int) -> bytes:
    """A PNG that states a size and ends where its pixels should begin."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 99)
        + b"IDAT"
    )


def whole_jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise((64, 64), 3)).save(file, "JPEG")
    return file.getvalue()


BAD_FILES = {
    "text named .png": (b"hello, I am a text file\n", "begins with b'hello, I'"),
    "zero bytes": (b"", "an empty file"),
    "truncated JPEG": (whole_jpeg()[:700], "damaged"),
    "PNG without pixels": (png_header(10, 10), "damaged"),
    "PNG signature alone": (b"\x89PNG\r\n\x1a\n", "header is incomplete"),
    "30000x30000 header": (png_header(30000, 30000), "at most 100 megapixels"),
    "11000x10000 header": (png_header(11000, 10000), "got 11000x10000"),
    "a zip archive": (b"PK\x03\x04" + bytes(40), "got a ZIP archive"),
    "a PDF": (b"%PDF-1.7\n", "got a PDF document"),
    "a TIFF without a picture": (b"II*\x00" + bytes(60), "damaged"),
    "GIF without frames": (b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "damaged"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    content, said = BAD_FILES[case]
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        load_picture(path)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert str(path) in message


def test_missing_directory_and_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        load_picture(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="a directory"):
        load_picture(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="device or pipe"):
        load_picture(tmp_path / "pipe")
    with pytest.raises(ImageError, match="device or pipe"):
        load_picture("/dev/null")
    with pytest.raises(ImageError, match="no such file"):
        load_picture("a\0b.png")


def test_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    Image.new("RGB", (4, 4)).save(path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, whom no mode keeps out
    with pytest.raises(ImageError, match="Permission denied"):
        load_picture(path)


def test_pixel_cap_can_be_set() -> None:
    with pytest.raises(ImageError, match=r"0\.0001 megapixels"):
        load_picture(Image.new("RGB", (20, 20)), max_pixels=100)


def test_empty_picture_is_refused() -> None:
    with pytest.raises(ImageError, match="at least one pixel"):
        load_picture(Image.new("RGB", (0, 5)))
