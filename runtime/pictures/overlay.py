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
    """Left the grid of tiles with numbers and cut padding, right the overview, below a legend.

    Without a grid the overview alone.
    """
    tiles = [Image.fromarray(one.transpose(1, 2, 0)) for one in cut_tiles(image, layout, geometry)]
    side = max(48, _EDGE // max(*layout.grid, 1))
    grid = _draw_grid(tiles[1:], layout, geometry, side) if tiles[1:] else None
    left = _MARGIN if grid is None else grid.width + 2 * _MARGIN
    height = max(side, 0 if grid is None else grid.height) + 3 * _MARGIN
    sheet = Image.new("RGB", (left + side + _MARGIN, height), "white")
    if grid is not None:
        sheet.paste(grid, (_MARGIN, _MARGIN))
    sheet.paste(tiles[0].resize((side, side), Image.Resampling.NEAREST), (left, _MARGIN))
    pen, font = ImageDraw.Draw(sheet), _font(16)
    pen.rectangle(_box(left, _MARGIN, side, side), outline=_LINE, width=2)
    _label(pen, (left + 6, _MARGIN + 6), "0 overview", font)
    pen.text((_MARGIN, height - 1.6 * _MARGIN), _legend(layout), fill="black", font=font)
    return sheet


def _legend(layout: Layout) -> str:
    width, height = layout.size
    if layout.tiles == 1:
        return f"{width}x{height} px, the overview alone, {layout.image_tokens} positions"
    rows, columns = layout.grid
    tiles = f"{rows}x{columns} tiles + overview, {layout.image_tokens} positions"
    return f"{width}x{height} px, {tiles}; blue: padding that was cut"


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
    thin = kept[2] <= kept[0] or kept[3] <= kept[1]  # of a narrow picture all features may be cut
    if not thin:
        cut.paste(0, kept)
    grid.paste(Image.new("RGB", grid.size, _CUT), mask=cut)
    if cut.getextrema()[1] and not thin:
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
