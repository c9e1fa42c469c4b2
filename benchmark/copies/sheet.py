"""Contact sheets: pictures side by side with a line below each, to decide about them by eye."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

THUMB = 128
"""Pixels that a picture may be wide and high."""
_LEAST = 4
"""Pictures that a sheet has room for at least, for the sake of its titles."""
_MARGIN, _LINE = 10, 15
_CHARACTERS = 21
_INK, _PAPER, _FRAME = (28, 27, 31), (255, 255, 255), (179, 0, 60)


@dataclass(frozen=True)
class Cell:
    """A picture of a sheet with the line below it; ``framed`` where it is the one that was chosen."""

    image: Image.Image
    line: str
    framed: bool = False


@dataclass(frozen=True)
class Row:
    """Pictures that belong together, under a title."""

    title: str
    cells: tuple[Cell, ...]


def contact_sheet(rows: Sequence[Row]) -> bytes:
    """The rows below each other, as PNG."""
    widest = max(_LEAST, *(len(row.cells) for row in rows))
    wide = _MARGIN + widest * (THUMB + _MARGIN)
    high = THUMB + 2 * _LINE + 2 * _MARGIN
    sheet = Image.new("RGB", (wide, _MARGIN + len(rows) * high), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for number, row in enumerate(rows):
        top = _MARGIN + number * high
        draw.text((_MARGIN, top), _plain(row.title, widest * _CHARACTERS), _INK, font)
        for column, cell in enumerate(row.cells):
            left = _MARGIN + column * (THUMB + _MARGIN)
            _put(sheet, draw, cell, left, top + _LINE + _MARGIN // 2)
            draw.text((left, top + _LINE + THUMB + _MARGIN // 2 + 2), _plain(cell.line, _CHARACTERS), _INK, font)
    encoded = io.BytesIO()
    sheet.save(encoded, "PNG")
    return encoded.getvalue()


def _put(sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, left: int, top: int) -> None:
    scale = THUMB / max(cell.image.size)
    size = [max(1, round(one * scale)) for one in cell.image.size]
    sheet.paste(cell.image.resize((size[0], size[1]), Image.Resampling.BILINEAR), (left, top))
    if cell.framed:
        draw.rectangle((left - 2, top - 2, left + size[0] + 1, top + size[1] + 1), outline=_FRAME, width=3)


def _plain(text: str, longest: int) -> str:
    """What Pillow's own font has: other letters as ?, and no more than fits."""
    text = text.encode("ascii", "replace").decode()
    return text if len(text) <= longest else f"...{text[3 - longest :]}"
