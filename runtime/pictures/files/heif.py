"""HEIC and AVIF: what of them Pillow or pillow-heif must not see, and who decodes them."""

from __future__ import annotations

import io
import re

from PIL import Image, features

from ...errors import ImageError
from .kinds import AVIF, CONVERT, HEIC, Kind

_EXIF_ITEM = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))Exif", re.S)


def without_exif(data: bytes) -> bytes:
    """The file with its EXIF item under a name that decoders pass over.

    Both formats say the way up beside the pixels (irot, imir), and decoders follow that; EXIF is a copy for others to
    read (ISO/IEC 23000-22), and where it is damaged Pillow refuses the picture.
    """
    return _EXIF_ITEM.sub(rb"\1skip", data)


def check_decoder(kind: Kind) -> None:
    """Refuse a format that nothing here decodes, naming what does. Raises :class:`ImageError`."""
    if kind is AVIF and not features.check("avif"):
        raise ImageError(
            expected="a Pillow that reads AVIF", got="one without it", fix=f"install Pillow 11.3 or later, or {CONVERT}"
        )
    if kind is HEIC:
        try:
            import pillow_heif  # noqa: F401
        except ImportError as error:
            raise ImageError(
                expected="the package pillow-heif for a HEIC picture",
                got="no such package",
                fix=f'install the extra: pip install "llava-edge[heic]", or {CONVERT}',
            ) from error


def open_heif(data: bytes) -> Image.Image:
    """The primary picture of a HEIC file, 8 bits a channel, upright; decoded when it is loaded."""
    from pillow_heif import HeifImageFile

    image: Image.Image = HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
    return image
