"""Pictures from outside, opened with suspicion: one-line errors, no decoding before the size is known."""

from __future__ import annotations

import functools
import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ..errors import ImageError
from .files.colours import colour_warnings, to_rgb
from .files.containers import Pixels, take_apart
from .files.cut import FINEST, MOST_MISSING, fill_in
from .files.heif import check_decoder, open_heif, without_exif
from .files.kinds import AGAIN, AVIF, HEIC, TIFF, Kind
from .files.orientation import ORIENTATION, orientation_of, turn_upright, turned_size
from .files.sources import UNNAMED, ByteSource, bytes_of, enough_memory, in_file, readable_kind, shown_name
from .files.tiff import take_tiff

MAX_PIXELS = 100_000_000
"""Default cap on width x height, read from the header: 100 megapixels decode to 300 MB."""

_STRIP = 256
"""Rows whose bytes are copied at once."""

ImageSource = ByteSource | Image.Image | npt.NDArray[np.uint8]
"""A path or data URL, an image file's bytes or an open one, a Pillow image, an RGB array uint8 (height, width, 3)."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture: RGB pixels, which nobody may alter, the mode they had before, and the file's name.

    ``warnings`` are sentences about what may not look as it was meant. Equal are pictures of one digest and name.
    """

    image: Image.Image = field(repr=False)
    mode: str
    name: str
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.size

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256, in hex, over mode, size and RGB pixels: the same picture under another name is the same picture.

        Worked out when first asked for, which training never does.
        """
        digest = hashlib.sha256(f"{self.mode} {self.size[0]}x{self.size[1]} ".encode())
        width, height = self.size
        for top in range(0, height, _STRIP):  # a copy of all its pixels may be 300 MB
            digest.update(self.image.crop((0, top, width, min(top + _STRIP, height))).tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and (self.digest, self.name) == (other.digest, other.name)

    def __hash__(self) -> int:
        return hash((self.digest, self.name))


def load_picture(source: ImageSource, *, max_pixels: int = MAX_PIXELS, name: str = UNNAMED) -> Picture:
    """Open, turn upright (EXIF) and convert a picture to RGB the way the reference does.

    The first frame of an animation counts. ``name`` is what a picture without a file name is called. Raises
    :class:`ImageError`.
    """
    if isinstance(source, np.ndarray):
        with enough_memory(name):
            image = _from_array(source, name)
        return _from_pillow(image, name, max_pixels)
    if isinstance(source, Image.Image):
        return _from_pillow(source, name, max_pixels)
    data, name = bytes_of(source, name)
    kind = readable_kind(data, name)
    with _refusing(name, max_pixels):
        pixels = _pixels(data, kind)
        image, said = _decode(data, kind, pixels, name, max_pixels)
        return _picture(turn_upright(image, _orientation(image, pixels)), name, said)


def picture_size(source: ByteSource, *, name: str = UNNAMED) -> tuple[int, int]:
    """(width, height) in pixels as :func:`load_picture` gives it, from the header alone. Raises :class:`ImageError`."""
    data, name = bytes_of(source, name)
    kind = readable_kind(data, name)
    with _refusing(name, MAX_PIXELS):
        pixels = _pixels(data, kind)
    with _refusing(name, MAX_PIXELS), _opened(pixels.data, kind) as image:
        _check_size(image.size, name, MAX_PIXELS)
        return turned_size(image.size, _orientation(image, pixels))


def _pixels(data: bytes, kind: Kind) -> Pixels:
    """The file without what surrounds its pixels."""
    if kind.decoder in ("JPEG", "PNG", "WEBP"):
        return take_apart(data, kind.decoder)
    if kind is TIFF:
        return take_tiff(data)
    return Pixels(without_exif(data)) if kind in (AVIF, HEIC) else Pixels(data)


@contextmanager
def _opened(data: bytes, kind: Kind) -> Iterator[Image.Image]:
    """A picture of which the header was read."""
    check_decoder(kind)
    if kind is HEIC:
        yield open_heif(data)
        return
    with Image.open(io.BytesIO(data), formats=(kind.decoder,)) as image:
        yield image


def _decode(data: bytes, kind: Kind, pixels: Pixels, name: str, max_pixels: int) -> tuple[Image.Image, tuple[str, ...]]:
    """The first picture of a file, and what is to be said of it."""

    def decode(raw: bytes) -> Image.Image:
        with _opened(raw, kind) as image:
            _check_size(image.size, name, max_pixels)
            image.load()
            several = _several(image, pixels.frames, kind)
            said.update({several: None} if several else {})
            return image.copy()

    said: dict[str, None] = {}  # in order, each once: a cut file is decoded twice
    if not pixels.cut:
        return decode(pixels.data), tuple(f"{shown_name(name)} {one}" for one in said)
    with _opened(pixels.data, kind) as header:
        _check_size(header.size, name, max_pixels)
    filled = fill_in(data, kind.decoder, pixels, decode)
    if filled is None or filled[1] > MOST_MISSING:
        part = "a part" if filled is None else f"{filled[1]:.0%}"
        raise _damaged(name, f"it ends early, {part} of the picture is missing")
    cut = f"is cut short: {_missing(filled[1])}"
    return filled[0], tuple(f"{shown_name(name)} {one}" for one in (cut, *said))


def _missing(share: float) -> str:
    if share == FINEST:
        return "its finest detail is missing in places"
    return f"{max(share, 0.01):.0%} of it is missing and was filled in" if share else "no pixel is missing"


def _several(image: Image.Image, frames: int, kind: Kind) -> str:
    """What to say of a file of several pictures."""
    count = max(frames, getattr(image, "n_frames", 1) if kind is AVIF else 1)
    if kind is TIFF and count > 1:
        return f"has {count} pages; only the first was looked at"
    if count > 1:
        return f"is an animation of {count} frames; only the first was looked at"
    try:
        moving = kind.decoder == "GIF" and bool(getattr(image, "is_animated", False))
    except Exception:  # frames behind the first are damaged, and nobody looks at them
        return ""
    finally:
        if kind.decoder == "GIF":
            image.seek(0)
            image.load()
    return "is an animation; only its first frame was looked at" if moving else ""


def _from_pillow(image: Image.Image, name: str, max_pixels: int) -> Picture:
    _check_size(image.size, name, max_pixels)
    with _refusing(name, max_pixels):
        try:
            image.load()
        except ValueError as error:
            if "closed" not in str(error):
                raise
            raise ImageError(
                expected=f"an open Pillow image as {shown_name(name)}", got="a closed one", fix="open it again"
            ) from error
        return _picture(turn_upright(image, _orientation(image)), name, ())


def _orientation(image: Image.Image, pixels: Pixels | None = None) -> int:
    """What a file's EXIF or XMP says, else what Pillow found (in an AVIF it is part of the format)."""
    if pixels is not None and (stated := orientation_of(pixels.exif, pixels.xmp)) != 1:
        return stated
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # it can't be read whole, but this entry of it perhaps can
        return orientation_of(image.info.get("exif") or b"")


def _from_array(array: npt.NDArray[np.uint8], name: str) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(
            expected=f"an array uint8 of shape (height, width, 3), RGB, as {shown_name(name)}",
            got=f"{array.dtype} {array.shape}"[:100],
            fix="convert the array, or give it as a Pillow image: Image.fromarray(array)",
        )
    return Image.fromarray(np.ascontiguousarray(array)) if array.size else Image.new("RGB", array.shape[1::-1])


def _picture(image: Image.Image, name: str, said: tuple[str, ...]) -> Picture:
    rgb = to_rgb(image)
    sentences = (f"{shown_name(name)} {one}" for one in colour_warnings(image, rgb))
    return Picture(rgb, image.mode, name, tuple(f"{one}." for one in (*said, *sentences)))


@contextmanager
def _refusing(name: str, max_pixels: int) -> Iterator[None]:
    """Say whatever a decoder trips over as an :class:`ImageError`, and nothing of what it only warns of."""
    try:
        with enough_memory(name), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        got = f"{int(pixels[0]) / 1e6:,.0f}" if pixels else "many more"  # Pillow does not say how wide and high
        raise _too_large(name, f"{got} megapixels", max_pixels) from error
    except UnidentifiedImageError as error:
        raise _damaged(name, "its header is incomplete") from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them trip over
        raise _damaged(name, str(error)[:100]) from error


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise _too_large(name, f"{size[0]}x{size[1]}", max_pixels)
    if min(size) < 1:
        raise ImageError(
            expected=f"at least one pixel{in_file(name)}",
            got=f"{size[0]}x{size[1]}",
            fix="give another picture",
        )


def _too_large(name: str, got: str, max_pixels: int) -> ImageError:
    return ImageError(
        expected=f"at most {max_pixels / 1e6:g} megapixels in {shown_name(name)}",
        got=got,
        fix="scale the picture down; models see no more than about a thousand pixels a side",
    )


def _damaged(name: str, reason: str) -> ImageError:
    return ImageError(expected=f"a whole picture{in_file(name)}", got=f"a damaged one ({reason})", fix=AGAIN)
