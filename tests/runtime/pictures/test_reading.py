"""The original reading: grids, tiles and unpadding against the original code's rule, written here from its description.

That rule says of a picture of (width, height): every pair of the checkpoint's list is a (width, height); the pair
is taken that keeps most of the picture's pixels, of equals the one that wastes least, of equals the first. The picture
is resized to fit, the free side rounded up, and centred on black. Of the feature map, rows or columns that are padding
are cut: what the picture fills is truncated to a whole number, and half of the rest goes on either side.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime.pictures.geometry import Geometry
from llava_edge.runtime.pictures.tiles import cut_tiles, lay_out
from PIL import Image

Pair = tuple[int, int]
HALF = (0.5, 0.5, 0.5)
LISTS: dict[str, tuple[int, int, list[Pair]]] = {
    "released": (336, 14, [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]),
    "article": (336, 14, [(336 * a, 336 * b) for a, b in ((2, 2), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (4, 1))]),
    "range": (50, 10, [(50 * a, 50 * b) for a in range(1, 7) for b in range(1, 7)]),
    "not both ways": (56, 14, [(56, 168), (112, 56), (112, 112)]),
}
"""Tile, patch, and pairs as a checkpoint lists them."""


def geometry_of(name: str) -> Geometry:
    side, patch, pairs = LISTS[name]
    heights_first = tuple((height, width) for width, height in pairs)
    return Geometry(side, patch, heights_first, HALF, HALF, reading="original")


def original(size: Pair, name: str) -> dict[str, Any] | None:
    """What the original code makes of a picture of (width, height)."""
    side, patch, pairs = LISTS[name]
    width, height = size
    ranked = []
    for index, (wide, high) in enumerate(pairs):
        scale = min(wide / width, high / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        ranked.append((-kept, wide * high - kept, index))
    least, _, chosen = min(ranked)
    if least == 0:
        return None
    wide, high = pairs[chosen]
    by_width, by_height = wide / width, high / height
    if by_width < by_height:
        inside = (wide, min(-int(-height * by_width // 1), high))
    else:
        inside = (min(-int(-width * by_height // 1), wide), high)
    columns, rows = wide // side * (side // patch), high // side * (side // patch)
    top = left = 0
    if width / height > columns / rows:
        top = (rows - int(height * (columns / width))) // 2
    else:
        left = (columns - int(width * (rows / height))) // 2
    kept_map = (rows - 2 * top, columns - 2 * left)
    return {
        "grid": (high // side, wide // side),
        "resized": inside,
        "unpadded": kept_map,
        "feature_offset": (top, left),
        "image_tokens": (side // patch) ** 2 + kept_map[0] * (kept_map[1] + 1),
    }


def check(size: Pair, name: str) -> None:
    expected = original(size, name)
    if expected is not None:
        layout = lay_out(size, geometry_of(name))
        assert {key: getattr(layout, key) for key in expected} == expected, size


@pytest.mark.parametrize("name", LISTS)
def test_small_and_large_sizes(name: str) -> None:
    draw, side = random.Random(20261127), LISTS[name][0]
    for _ in range(4_000):
        check((draw.randint(1, side), draw.randint(1, side)), name)  # where the two readings part
        check((draw.randint(1, 8000), draw.randint(1, 8000)), name)


@pytest.mark.parametrize(
    ("size", "tokens"),
    [((300, 200), 976), ((640, 480), 2340), ((1920, 1080), 1948), ((1070, 150), 1306), ((352, 748), 1826)],
)
def test_known_token_counts(size: Pair, tokens: int) -> None:
    """Counts of the original code; the first and the last are others in transformers (1464, 1776)."""
    assert lay_out(size, geometry_of("released")).image_tokens == tokens


def test_the_tiles_of_a_small_picture() -> None:
    """A picture that fits a tile: one column of two tiles, the picture in the middle of the black canvas."""
    picture = Image.fromarray(np.random.default_rng(5).integers(0, 256, (200, 300, 3), np.uint8))
    geometry = geometry_of("released")
    layout = lay_out(picture.size, geometry)
    canvas = Image.new("RGB", (336, 672))
    canvas.paste(picture.resize((336, 225), Image.Resampling.BICUBIC), (0, 223))  # 200 * 1.12 is above 224 in floats
    cut = [picture.resize((336, 336), Image.Resampling.BICUBIC)]
    cut += [canvas.crop((0, top, 336, top + 336)) for top in (0, 336)]
    expected = np.stack([np.asarray(tile).transpose(2, 0, 1) for tile in cut])
    assert np.array_equal(cut_tiles(picture, layout, geometry), expected)


def test_the_rounding_alone_is_told_by_the_reading() -> None:
    """352x748: the same pinpoints, one column less."""
    geometry = geometry_of("released")
    one, other = (
        lay_out((352, 748), dataclasses.replace(geometry, reading=name)) for name in ("original", "transformers")
    )
    assert one.grid == other.grid
    assert one.unpadded != other.unpadded
