"""How far two pictures are apart when one may be a crop of the other: laid over each other, then the worst place.

Which part of the larger picture the other one shows is found on 24 x 24 cells by normalised correlation, and then
moved in ever finer steps. What counts in the end is the worst of 8 x 8 places, not the mean: two forms that are filled
in differently, or two photographs of a scene from beside each other, agree nearly everywhere.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from .looks import Look

SMALLEST_CROP = 0.8
"""The share of a picture's area that a crop is looked for from."""
FAR = 4.0
"""The difference of pictures that have nothing to do with each other, about; larger ones are not told apart."""

_SLACK = 0.95
"""Of the smallest crop: cells are whole, and a refined box may end a little inside."""
_CELLS = 24
_LEAST_CORRELATION = 0.4
"""Below it on the cells nothing is refined; the worst crop of 196 planted in photographs had 0.65."""
_REFINED, _COMPARED, _PLACES = 32, 64, 8
_STEPS = (1 / 32, 1 / 96, 1 / 256)
_EDGES = ((0, 2), (1, 3), (0,), (1,), (2,), (3,))
"""What is moved at a time: the box along one side of the picture, or one edge of it."""
_MOST_ROUNDS = 3
_WORTH_GOING_ON = 0.9
_CLEAR = 0.02
"""A difference from which on it is not asked whether the other way round is nearer still."""
_COLOUR = 24.0
"""Levels of 255 by which the mean colours of a copy may differ: re-encoding moves them by less than one."""
_LEAST_VARIANCE = 4.0
"""Levels squared that a picture is taken to vary by at least: of one colour, only noise would be compared."""

_Pixels = npt.NDArray[np.float32]
_Box = tuple[float, float, float, float]


def difference(one: Look, other: Look) -> float:
    """How far apart two pictures are, 0 for equal pixels, at most :data:`FAR`; which is the crop does not matter."""
    found = _difference(one, other)
    return found if found < _CLEAR else min(found, _difference(other, one))


def _difference(whole: Look, part: Look) -> float:
    found, box = _on_cells(whole.small, part.small)
    if found < _LEAST_CORRELATION and not _both_plain(whole, part):
        return FAR
    return _worst_place(whole.small, part.small, _refined(whole.small, part.small, box))


def _both_plain(one: Look, other: Look) -> bool:
    return all(_variance(np.asarray(look.small, np.float32)) < _LEAST_VARIANCE for look in (one, other))


def _variance(pixels: _Pixels) -> float:
    """Of the colours, added up."""
    return float(pixels.var(axis=(0, 1)).sum())


def _cells(image: Image.Image, size: tuple[int, int]) -> _Pixels:
    cells: _Pixels = np.asarray(image.resize(size, Image.Resampling.BOX), np.float32).mean(axis=2)
    return cells


def _on_cells(whole: Image.Image, part: Image.Image) -> tuple[float, _Box]:
    """The best correlation, and the box of ``whole`` that ``part`` then shows."""
    cells = _cells(whole, (_CELLS, _CELLS))
    smallest = int(np.ceil(_CELLS * SMALLEST_CROP))
    best, box = -1.0, (0, 0, _CELLS, _CELLS)
    for height, width in itertools.product(range(_CELLS, smallest - 1, -1), repeat=2):
        if height * width >= _SLACK * SMALLEST_CROP * _CELLS**2:
            found = _correlations(cells, _cells(part, (width, height)))
            top, left = np.unravel_index(int(found.argmax()), found.shape)
            if found[top, left] > best:
                best, box = float(found[top, left]), (int(left), int(top), int(left) + width, int(top) + height)
    wide, high = whole.width / _CELLS, whole.height / _CELLS
    return best, (box[0] * wide, box[1] * high, box[2] * wide, box[3] * high)


def _correlations(cells: _Pixels, part: _Pixels) -> _Pixels:
    """Normalised correlation of ``part`` with every place of ``cells`` that it fits on."""
    centred = part - part.mean()
    places = sliding_window_view(cells, part.shape)
    product = np.einsum("ijhw,hw->ij", places, centred)
    sums, squares = places.sum(axis=(2, 3)), np.einsum("ijhw,ijhw->ij", places, places)
    spread = np.sqrt(np.maximum(squares - sums**2 / part.size, 1e-3))
    found: _Pixels = product / (spread * (np.sqrt((centred**2).sum()) + 1e-6))
    return found


def _refined(whole: Image.Image, part: Image.Image, box: _Box) -> _Box:
    """The box moved and stretched as long as that brings the two nearer, in finer and finer steps."""
    wanted = _resized(part, _REFINED)
    best = _distance(whole, box, wanted)
    for step in _STEPS:
        for _ in range(_MOST_ROUNDS):
            before = best
            for edges, sign in itertools.product(_EDGES, (-1, 1)):
                moved = _moved(whole, box, edges, sign * step)
                if moved is not None and (found := _distance(whole, moved, wanted)) < best:
                    best, box = found, moved
            if best > _WORTH_GOING_ON * before:
                break
    return box


def _moved(whole: Image.Image, box: _Box, edges: tuple[int, ...], step: float) -> _Box | None:
    """The box with ``edges`` (left, top, right, bottom) moved by ``step`` of the picture; None if it is too small."""
    moved = list(box)
    for edge in edges:
        moved[edge] += step * (whole.height if edge % 2 else whole.width)
    left, top = max(moved[0], 0.0), max(moved[1], 0.0)
    right, bottom = min(moved[2], float(whole.width)), min(moved[3], float(whole.height))
    least = _SLACK * SMALLEST_CROP * whole.width * whole.height
    enough = right > left and bottom > top and (right - left) * (bottom - top) >= least
    return (left, top, right, bottom) if enough else None


def _resized(image: Image.Image, side: int, box: _Box | None = None) -> _Pixels:
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box), np.float32)


def _distance(whole: Image.Image, box: _Box, wanted: _Pixels) -> float:
    return float(((_resized(whole, _REFINED, box) - wanted) ** 2).mean())


def _worst_place(whole: Image.Image, part: Image.Image, box: _Box) -> float:
    """The squared error at the worst place, as a share of what two unrelated pictures of this contrast have."""
    one, other = _resized(whole, _COMPARED, box), _resized(part, _COMPARED)
    if float(np.abs(one.mean(axis=(0, 1)) - other.mean(axis=(0, 1))).max()) > _COLOUR:
        return FAR
    variance = (_variance(one) + _variance(other)) / 2
    side = _COMPARED // _PLACES
    places = ((one - other) ** 2).sum(axis=2).reshape(_PLACES, side, _PLACES, side).mean(axis=(1, 3))
    return min(float(places.max()) / (2 * max(variance, _LEAST_VARIANCE)), FAR)
