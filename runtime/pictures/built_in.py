"""The built-in picture, which parity is measured on."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .geometry import Geometry


def built_in_sizes(geometry: Geometry) -> tuple[tuple[int, int], ...]:
    """Sizes (width, height) whose grids parity compares: of them several hold in more than one grid equally well."""
    side = geometry.image_size
    shares = ((9, 6), (6, 9), (5, 5), (10, 10), (19, 11), (11, 19), (31, 9), (9, 31), (40, 30))
    return tuple((max(side * width // 10, 1), max(side * height // 10, 1)) for width, height in shares)


def built_in_picture(geometry: Geometry) -> Image.Image:
    """Draw the built-in picture: RGB, drawn with integers only, the same on every machine.

    Its size, 1.9 x 1.1 tiles, gives a grid with padding on two sides, so unpadding is exercised.
    """
    width, height = geometry.image_size * 19 // 10, geometry.image_size * 11 // 10
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    waves = (x * 7 + y * 3) % 256
    checks = ((x // geometry.patch_size + y // geometry.patch_size) % 2) * 120
    disc = ((x - width // 3) ** 2 + (y - height // 2) ** 2 < (height // 3) ** 2) * 90
    channels = [waves, (checks + disc + x // 3) % 256, (255 - waves // 2 + disc) % 256]
    pixels = np.stack([np.broadcast_to(one, (height, width)) for one in channels], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))
