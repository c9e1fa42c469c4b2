"""Anyres: from a picture's size to a tile grid (plain integers), and from a picture to tiles.

Source of the algorithm: LLaVA-NeXT's anyres as transformers reads it (``select_best_resolution``,
``get_patch_output_size``, ``unpad_image``) with its Pillow image processor, or as the original code has it
(``llava/mm_utils.py``, ``llava/model/llava_arch.py``), as the geometry's reading says. The float expressions
are written in the same order as there, because their rounding decides which sizes lose a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import ImageError
from .geometry import Geometry, Pinpoint, Reading

UNPAD_DIGITS = 7
"""transformers rounds to 7 digits before truncating; the original code only truncates (352x748 differs)."""


@dataclass(frozen=True)
class Layout:
    """What the model will see of a picture of ``size``.

    ``grid`` counts tiles (rows, columns) without the overview; (0, 0) means the overview alone.
    ``resized`` is the picture inside the grid canvas, (width, height) in pixels, pasted at
    ``offset`` (left, top). ``unpadded`` is the (rows, columns) of features left after the padding
    is cut, starting at ``feature_offset`` (row, column) of the grid's feature map. ``kept`` is how many features of
    the overview and of the grid stay where not all do; (0, 0) is all. ``image_tokens`` are positions: the features
    and a newline a row, or the features that stay and one newline.
    """

    size: tuple[int, int]
    grid: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    unpadded: tuple[int, int]
    feature_offset: tuple[int, int]
    image_tokens: int
    kept: tuple[int, int] = (0, 0)

    @property
    def tiles(self) -> int:
        """Tiles to encode, the overview included."""
        return 1 + self.grid[0] * self.grid[1]


def select_pinpoint(size: tuple[int, int], pinpoints: tuple[Pinpoint, ...]) -> Pinpoint:
    """Choose the (height, width) that keeps most of a ``size`` (width, height) picture.

    Largest effective resolution first, least waste second, earlier pinpoint third. Raises
    :class:`ImageError` where nothing of the picture would be left, as for 1x4000 pixels.
    """
    width, height = size
    best: Pinpoint | None = None
    most_effective, least_wasted = 0, math.inf
    for pinpoint_height, pinpoint_width in pinpoints:
        scale = min(pinpoint_width / width, pinpoint_height / height)
        downscaled = int(width * scale) * int(height * scale)
        effective = min(downscaled, width * height)
        wasted = pinpoint_width * pinpoint_height - effective
        if effective > most_effective or (effective == most_effective and wasted < least_wasted):
            most_effective, least_wasted = effective, wasted
            best = (pinpoint_height, pinpoint_width)
    if best is None:
        raise ImageError(
            expected="a picture whose shorter side is at least 1 px after it is fitted into the tiles",
            got=f"{width}x{height} px",
            fix="crop the picture to a less extreme shape",
        )
    return best


def lay_out(
    size: tuple[int, int],
    geometry: Geometry,
    *,
    overview_only: bool = False,
    picture_tokens: int | str | None = None,
) -> Layout:
    """Work out grid, padding and position count for a picture of ``size`` (width, height).

    With ``overview_only`` (or without pinpoints) the sequence is the overview's features and one
    newline, which is how the reference packs a picture that has no grid tiles. ``picture_tokens`` are the features
    that stay, as in :class:`GenerationOptions`.
    """
    whole = _lay_out(size, geometry, overview_only)
    return whole if picture_tokens is None else _reduced(whole, geometry, picture_tokens)


def whole_layout(layout: Layout, geometry: Geometry) -> Layout:
    """The layout with all its positions."""
    return _lay_out(layout.size, geometry, layout.grid == (0, 0))


def layout_entry(layout: Layout, geometry: Geometry) -> dict[str, object]:
    """What programs read of a layout: the object of ``tiles --json`` and, with an id, of ``POST /v1/pictures``.

    Where features are left out, ``all_image_tokens`` are the positions with them.
    """
    every = {"all_image_tokens": whole_layout(layout, geometry).image_tokens} if any(layout.kept) else {}
    return {
        "size": list(layout.size),
        "grid": list(layout.grid),
        "resized": list(layout.resized),
        "unpadded": list(layout.unpadded),
        "image_tokens": layout.image_tokens,
        **every,
    }


def kept_features(wanted: int | str, every: int) -> int:
    """How many of ``every`` features ``picture_tokens`` asks for: a number, or a share such as "25%"."""
    return wanted if isinstance(wanted, int) else max(2, round(every * float(wanted.rstrip("%")) / 100))


def _reduced(whole: Layout, geometry: Geometry, wanted: int | str) -> Layout:
    """The layout with ``wanted`` features, half of them the overview's or all that it has, and a newline at the end."""
    overview, grid = geometry.features_per_tile, whole.unpadded[0] * whole.unpadded[1]
    every = overview + grid
    count = kept_features(wanted, every)
    if count >= every:
        return whole
    of_grid = min(max(count // 2, count - overview), grid)
    return replace(whole, kept=(count - of_grid, of_grid), image_tokens=count + 1)


def _lay_out(size: tuple[int, int], geometry: Geometry, overview_only: bool) -> Layout:
    if overview_only or not geometry.pinpoints:
        return Layout(size, (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), geometry.features_per_tile + 1)
    canvas_height, canvas_width = select_pinpoint(size, geometry.pinpoints)
    rows, columns = canvas_height // geometry.image_size, canvas_width // geometry.image_size
    resized = _fit(size, (canvas_width, canvas_height))
    offset = ((canvas_width - resized[0]) // 2, (canvas_height - resized[1]) // 2)
    side = geometry.patches_per_side
    cut_rows, cut_columns = _padding_to_cut(size, (columns * side, rows * side), geometry.reading)
    unpadded = (rows * side - 2 * cut_rows, columns * side - 2 * cut_columns)
    image_tokens = geometry.features_per_tile + unpadded[0] * (unpadded[1] + 1)
    return Layout(size, (rows, columns), resized, offset, unpadded, (cut_rows, cut_columns), image_tokens)


def _fit(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """Largest (width, height) of the same aspect ratio inside ``canvas``, the free side rounded up."""
    scale_width, scale_height = canvas[0] / size[0], canvas[1] / size[1]
    if scale_width < scale_height:
        return canvas[0], min(math.ceil(size[1] * scale_width), canvas[1])
    return min(math.ceil(size[0] * scale_height), canvas[0]), canvas[1]


def _padding_to_cut(size: tuple[int, int], feature_map: tuple[int, int], reading: Reading) -> tuple[int, int]:
    """Rows cut at top and bottom, and columns cut at left and right, of a (columns, rows) map."""
    (width, height), (columns, rows) = size, feature_map
    if width / height > columns / rows:
        used_rows = _whole(height * (columns / width), reading)
        return (rows - used_rows) // 2, 0
    used_columns = _whole(width * (rows / height), reading)
    return 0, (columns - used_columns) // 2


def _whole(features: float, reading: Reading) -> int:
    """Rows or columns that a picture fills, as whole ones."""
    return int(features if reading == "original" else round(features, UNPAD_DIGITS))


def cut_tiles(image: Image.Image, layout: Layout, geometry: Geometry) -> npt.NDArray[np.uint8]:
    """Cut an RGB picture into tiles, the overview first, then the grid row by row.

    Returns uint8 of shape (tiles, 3, image_size, image_size).
    """
    side = geometry.image_size
    overview = image.resize((side, side), Image.Resampling.BICUBIC)
    tiles = [np.asarray(overview)]
    rows, columns = layout.grid
    if rows:
        canvas = Image.new("RGB", (columns * side, rows * side))
        canvas.paste(image.resize(layout.resized, Image.Resampling.BICUBIC), layout.offset)
        pixels = np.asarray(canvas).reshape(rows, side, columns, side, 3)
        tiles.extend(pixels.swapaxes(1, 2).reshape(rows * columns, side, side, 3))
    return np.ascontiguousarray(np.stack(tiles).transpose(0, 3, 1, 2))  # (tiles, 3, side, side)


def pixels_of(image: Image.Image, geometry: Geometry, layout: Layout | None = None) -> npt.NDArray[np.float32]:
    """What the vision tower sees of an RGB picture: float32 (tiles, 3, image_size, image_size), the overview first.

    ``layout`` is the picture's own from :func:`lay_out`, worked out where it is not given.
    """
    return normalise(cut_tiles(image, layout or lay_out(image.size, geometry), geometry), geometry)


def normalise(tiles: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.float32]:
    """Scale and normalise tiles (tiles, 3, side, side) the way the reference does, in float32."""
    rescaled = (tiles.astype(np.float64) * geometry.rescale).astype(np.float32)
    mean = np.array(geometry.mean, np.float32)[:, None, None]
    std = np.array(geometry.std, np.float32)[:, None, None]
    return ((rescaled - mean) / std).astype(np.float32, copy=False)
