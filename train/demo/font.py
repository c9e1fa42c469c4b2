"""A bitmap font of our own: 5 columns by 7 rows, drawn small so that signs need the tiles.

At its natural size a letter is 5 pixels wide. The overview shrinks a picture to half or less, which leaves two or
three grey pixels a letter: too few to tell A from R. That is what makes the demo's signs a test of the tiles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GLYPH_WIDTH = 5
GLYPH_HEIGHT = 7
GLYPH_GAP = 1

_ROWS: dict[str, str] = {
    "A": ".###. #...# #...# ##### #...# #...# #...#",
    "B": "####. #...# #...# ####. #...# #...# ####.",
    "C": ".#### #.... #.... #.... #.... #.... .####",
    "D": "####. #...# #...# #...# #...# #...# ####.",
    "E": "##### #.... #.... ####. #.... #.... #####",
    "F": "##### #.... #.... ####. #.... #.... #....",
    "G": ".#### #.... #.... #..## #...# #...# .####",
    "H": "#...# #...# #...# ##### #...# #...# #...#",
    "I": ".###. ..#.. ..#.. ..#.. ..#.. ..#.. .###.",
    "J": "..### ...#. ...#. ...#. ...#. #..#. .##..",
    "K": "#...# #..#. #.#.. ##... #.#.. #..#. #...#",
    "L": "#.... #.... #.... #.... #.... #.... #####",
    "M": "#...# ##.## #.#.# #.#.# #...# #...# #...#",
    "N": "#...# ##..# ##..# #.#.# #..## #..## #...#",
    "O": ".###. #...# #...# #...# #...# #...# .###.",
    "P": "####. #...# #...# ####. #.... #.... #....",
    "Q": ".###. #...# #...# #...# #.#.# #..#. .##.#",
    "R": "####. #...# #...# ####. #.#.. #..#. #...#",
    "S": ".#### #.... #.... .###. ....# ....# ####.",
    "T": "##### ..#.. ..#.. ..#.. ..#.. ..#.. ..#..",
    "U": "#...# #...# #...# #...# #...# #...# .###.",
    "V": "#...# #...# #...# #...# .#.#. .#.#. ..#..",
    "W": "#...# #...# #...# #.#.# #.#.# ##.## #...#",
    "X": "#...# #...# .#.#. ..#.. .#.#. #...# #...#",
    "Y": "#...# #...# .#.#. ..#.. ..#.. ..#.. ..#..",
    "Z": "##### ....# ...#. ..#.. .#... #.... #####",
    "0": ".###. #...# #..## #.#.# ##..# #...# .###.",
    "1": "..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.",
    "2": ".###. #...# ....# ...#. ..#.. .#... #####",
    "3": "####. ....# ....# .###. ....# ....# ####.",
    "4": "...#. ..##. .#.#. #..#. ##### ...#. ...#.",
    "5": "##### #.... ####. ....# ....# #...# .###.",
    "6": "..##. .#... #.... ####. #...# #...# .###.",
    "7": "##### ....# ...#. ...#. ..#.. ..#.. ..#..",
    "8": ".###. #...# #...# .###. #...# #...# .###.",
    "9": ".###. #...# #...# .#### ....# ...#. .##..",
}
"""One line a glyph, rows from top to bottom, ``#`` is ink."""

CHARACTERS = "".join(_ROWS)


def glyph(character: str) -> NDArray[np.bool_]:
    """The ink of one character, (7, 5) booleans; ``KeyError`` for a character the font does not have."""
    rows = _ROWS[character].split(" ")
    return np.array([[cell == "#" for cell in row] for row in rows], dtype=np.bool_)


def text_width(text: str) -> int:
    """Width of ``text`` in font pixels: glyphs with a gap between them."""
    return len(text) * (GLYPH_WIDTH + GLYPH_GAP) - GLYPH_GAP


def text_mask(text: str) -> NDArray[np.bool_]:
    """The ink of a line of text, (7, text_width(text)) booleans."""
    mask = np.zeros((GLYPH_HEIGHT, text_width(text)), dtype=np.bool_)
    for index, character in enumerate(text):
        left = index * (GLYPH_WIDTH + GLYPH_GAP)
        mask[:, left : left + GLYPH_WIDTH] = glyph(character)
    return mask
