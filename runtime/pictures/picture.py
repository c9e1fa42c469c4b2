"""Pictures from outside, opened with suspicion: one-line errors, no decoding before the size is known."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import stat
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import ImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""What is opened. Pillow's JPEG reader also takes MPO, a phone's JPEG with a second picture behind it."""
SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"GIF8")
"""First bytes of these formats: a file that has them and can't be opened is damaged, not foreign."""
MAX_PIXELS = 100_000_000
"""Default cap on width x height, read from the header: 100 megapixels decode to 300 MB."""

ImageSource = str | os.PathLike[str] | bytes | Image.Image
"""A path, the bytes of an image file, or a Pillow image."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture: RGB pixels, which nobody may alter, the mode they had before, and the file's name.

    Equal are pictures of one digest and name.
    """

    image: Image.Image = field(repr=False)
    mode: str
    name: str

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
        digest.update(self.image.tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and (self.digest, self.name) == (other.digest, other.name)

    def __hash__(self) -> int:
        return hash((self.digest, self.name))


def load_picture(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Open, turn upright (EXIF) and convert a picture to RGB the way the reference does.

    The first frame of an animation counts. Raises :class:`ImageError`.
    """
    if isinstance(source, Image.Image):
        return _picture(source, "picture", max_pixels)
    if isinstance(source, bytes):
        return _open(io.BytesIO(source), "picture", max_pixels)
    path = Path(source)
    _check_regular(path)
    try:
        with path.open("rb") as file:
            return _open(file, str(path), max_pixels)
    except OSError as error:
        if isinstance(error, ImageError):  # pragma: no cover - ImageError is a ValueError
            raise
        raise ImageError(
            expected=f"a readable picture at {path}",
            got=error.strerror or str(error),
            fix="check the file's permissions",
        ) from error


def _check_regular(path: Path) -> None:
    """Refuse what is no plain file before opening it: reading a pipe or device could block for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise ImageError(expected=f"a picture at {path}", got="no such file", fix="check the path") from error
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "a device or pipe"
        raise ImageError(expected=f"a picture at {path}", got=kind, fix="give the path of a picture file")


def _open(file: io.BytesIO | io.BufferedReader, name: str, max_pixels: int) -> Picture:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the pixel cap below says it better than Pillow's warning
            with Image.open(file, formats=FORMATS) as image:
                _check_size(image.size, name, max_pixels)
                image.load()
                return _picture(image, name, max_pixels)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error).split(" exceeds")[0], max_pixels) from error
    except UnidentifiedImageError as error:
        raise _unidentified(file, name) from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them trip over
        raise _damaged(name, str(error)) from error


def _picture(image: Image.Image, name: str, max_pixels: int) -> Picture:
    _check_size(image.size, name, max_pixels)
    upright = ImageOps.exif_transpose(image)
    return Picture(to_rgb(upright), upright.mode, name)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB as transformers 5 does: transparency is laid on white, the rest is Pillow's."""
    transparent = "A" in image.getbands() or image.info.get("transparency") is not None
    if not transparent:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layered).convert("RGB")


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise _too_large(name, f"{size[0]}x{size[1]}", max_pixels)
    if min(size) < 1:
        raise ImageError(
            expected=f"at least one pixel in {name}", got=f"{size[0]}x{size[1]}", fix="give another picture"
        )


def _too_large(name: str, got: str, max_pixels: int) -> ImageError:
    return ImageError(
        expected=f"at most {max_pixels / 1e6:g} megapixels in {name}",
        got=got,
        fix="scale the picture down or raise max_pixels",
    )


def _damaged(name: str, reason: str) -> ImageError:
    return ImageError(expected=f"a whole picture in {name}", got=f"a damaged one ({reason})", fix="get the file again")


def _unidentified(file: io.BytesIO | io.BufferedReader, name: str) -> ImageError:
    file.seek(0)
    head = file.read(16)
    if head.startswith(SIGNATURES):
        return _damaged(name, "its header is incomplete")
    return ImageError(
        expected=f"a PNG, JPEG, WebP, BMP or GIF picture in {name}",
        got=f"a file that begins with {head[:8]!r}" if head else "an empty file",
        fix="convert the picture to one of these",
    )
