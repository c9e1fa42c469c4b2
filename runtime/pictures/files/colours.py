"""Colours as the model gets them, and what is lost on the way there."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ...errors import ImageError

_FLAT = 2
"""Steps of 255 by which the pixels of a picture of one colour may differ: what rounding does to transparency."""
_PLAIN = {"RGBa": "RGBA", "La": "LA", "I;16B": "I", "I;16L": "I", "I;16N": "I"}
"""Modes that Pillow converts to few others, and the one that is as good."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB as transformers 5 does: transparency is laid on white, the rest is Pillow's.

    Numbers beyond 255 become 255, which leaves little of a 16-bit picture: :func:`colour_warnings` says so. Raises
    :class:`ImageError` for colours that have no such conversion (LAB, HSV).
    """
    image = image.convert(_PLAIN[image.mode]) if image.mode in _PLAIN else image
    try:
        if not _transparent(image):
            return image.convert("RGB")
        layered = image.convert("RGBA")
    except ValueError as error:
        raise ImageError(
            expected="a picture in grey, RGB, CMYK or palette colours", got=image.mode, fix="save it as RGB"
        ) from error
    white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layered).convert("RGB")


def _transparent(image: Image.Image) -> bool:
    return (image.mode != "LAB" and "A" in image.getbands()) or image.info.get("transparency") is not None


def colour_warnings(image: Image.Image, rgb: Image.Image) -> list[str]:
    """What is lost from ``image`` in ``rgb``, as sentences that lack their subject and full stop."""
    said = []
    if image.mode == "F" or image.mode.startswith("I"):
        said.extend(_depth_warnings(image))
    extremes = rgb.getextrema()
    if all(high - low <= _FLAT for low, high in extremes):  # type: ignore[misc]
        colour = tuple(low for low, _ in extremes)  # type: ignore[misc]
        laid = "; its transparent parts were laid on white: lay it on another colour" if _transparent(image) else ""
        said.append(f"shows one colour alone, RGB {colour}{laid}")
    return said


def _depth_warnings(image: Image.Image) -> list[str]:
    """What of numbers that are no bytes becomes white or black."""
    values = np.asarray(image)
    kind = "a 16-bit picture" if image.mode.startswith("I;16") else "a picture with 32 bits a pixel"
    known = values[~np.isnan(values)]
    low, high = (known.min(), known.max()) if known.size else (0, 0)
    lost = ["what is brighter than 255 became white"] if high > 255 else []
    lost += ["what is below 0 became black"] if low < 0 else []
    lost += ["what is no number (NaN) became black"] if known.size < values.size else []
    if lost:
        return [f"is {kind} and was clipped: {', '.join(lost)}, as in transformers; scale it to 8 bits to see it"]
    if image.mode == "F" and high <= 1:
        return ["has brightness from 0 to 1 and became black, as in transformers; scale it to 0 to 255"]
    return []
