"""The picture of ``tiles --save``: tiles, overview and the padding that was cut, labelled."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..errors import OptionError
from ..system.storage import write_whole
from .geometry import Geometry
from .tiles import Layout, cut_tiles

_EDGE = 900
"""Longest side of the drawn grid in pixels; small tiles are enlarged to it."""
_MARGIN = 24
_LINE = (255, 40, 120)
_CUT = (60, 120, 255)


KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF", "": "PNG"}
"""What is written, by the ending of the file's name."""


def overlay_kind(path: Path) -> str:
    """Pillow's format for a file of this name. Raises OptionError for an ending that no picture of ours has."""
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        endings = ", ".join(filter(None, KINDS))
        raise OptionError(expected=f"a file that ends in {endings}", got=repr(path.name[-80:]), fix="name it like that")
    return kind


def save_overlay(path: Path, image: Image.Image, layout: Layout, geometry: Geometry) -> None:
    """Draw and write the overlay, whole or not at all. Raises OptionError for its name, and StorageError."""
    kind = overlay_kind(path)
    drawing = draw_overlay(image, layout, geometry)
    write_whole(path, lambda file: drawing.save(file, format=kind), make_folders=False)


def draw_overlay(image: Image.Image, layout: Layout, geometry: Geometry) -> Image.Image:
    """Left the grid of tiles with numbers and cut padding, right the overview, below a legend."""
    tiles = [Image.fromarray(one.transpose(1, 2, 0)) for one in cut_tiles(image, layout, geometry)]
    rows, columns = layout.grid
    side = max(48, _EDGE // max(rows, columns))
    grid = _draw_grid(tiles[1:], layout, geometry, side)
    overview = tiles[0].resize((side, side), Image.Resampling.NEAREST)
    font = _font(16)
    height = max(grid.height, side) + 3 * _MARGIN
    sheet = Image.new("RGB", (grid.width + side + 3 * _MARGIN, height), "white")
    sheet.paste(grid, (_MARGIN, _MARGIN))
    sheet.paste(overview, (grid.width + 2 * _MARGIN, _MARGIN))
    pen = ImageDraw.Draw(sheet)
    pen.rectangle(_box(grid.width + 2 * _MARGIN, _MARGIN, side, side), outline=_LINE, width=2)
    _label(pen, (grid.width + 2 * _MARGIN + 6, _MARGIN + 6), "0 overview", font)
    legend = (
        f"{layout.size[0]}x{layout.size[1]} px, {rows}x{columns} tiles + overview, "
        f"{layout.image_tokens} positions; blue: padding that was cut"
    )
    pen.text((_MARGIN, height - 1.6 * _MARGIN), legend, fill="black", font=font)
    return sheet


def _draw_grid(tiles: list[Image.Image], layout: Layout, geometry: Geometry, side: int) -> Image.Image:
    rows, columns = layout.grid
    grid = Image.new("RGB", (columns * side, rows * side))
    for index, tile in enumerate(tiles):
        scaled = tile.resize((side, side), Image.Resampling.NEAREST)
        grid.paste(scaled, (index % columns * side, index // columns * side))
    _tint_padding(grid, layout, side / geometry.patches_per_side)
    pen = ImageDraw.Draw(grid)
    for index in range(rows * columns):
        left, top = index % columns * side, index // columns * side
        pen.rectangle(_box(left, top, side, side), outline=_LINE, width=2)
        _label(pen, (left + 6, top + 6), str(index + 1), _font(16))
    return grid


def _tint_padding(grid: Image.Image, layout: Layout, cell: float) -> None:
    """Lay blue over the feature rows and columns that unpadding cuts away."""
    (top, left), (rows, columns) = layout.feature_offset, layout.unpadded
    cut = Image.new("L", grid.size, 140)
    kept = (round(left * cell), round(top * cell), round((left + columns) * cell), round((top + rows) * cell))
    cut.paste(0, kept)
    grid.paste(Image.new("RGB", grid.size, _CUT), mask=cut)
    if cut.getextrema()[1]:
        ImageDraw.Draw(grid).rectangle((kept[0], kept[1], kept[2] - 1, kept[3] - 1), outline=_CUT, width=2)


def _box(left: int, top: int, width: int, height: int) -> tuple[int, int, int, int]:
    return left, top, left + width - 1, top + height - 1


def _label(
    pen: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    pen.rectangle(pen.textbbox(at, text, font=font), fill="white")
    pen.text(at, text, fill=_LINE, font=font)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
