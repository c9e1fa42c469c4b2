"""What ``tiles --save`` draws: every picture that can be laid out, with a grid or without, however narrow."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle
from llava_edge.runtime.pictures.geometry import Geometry
from llava_edge.runtime.pictures.overlay import draw_overlay
from llava_edge.runtime.pictures.tiles import lay_out
from llava_edge.runtime.planning.shape_sources import preset_shape
from PIL import Image

GEOMETRIES = {
    "demo": Bundle.open(demo_bundle()).manifest.geometry,
    "published": preset_shape("llama3-8b").vision.geometry,
}
RED = (200, 30, 30)
NARROW = [(1, 5000), (20000, 1), (300, 9), (1, 600), (2, 900), (900, 2), (1, 1), (5000, 40)]


def drawn(size: tuple[int, int], geometry: Geometry, *, low: bool = False) -> Image.Image:
    return draw_overlay(Image.new("RGB", size, RED), lay_out(size, geometry, overview_only=low), geometry)


@pytest.mark.parametrize(("size", "name", "low"), list(itertools.product(NARROW, GEOMETRIES, (False, True))))
def test_every_picture_that_can_be_laid_out_is_drawn(size: tuple[int, int], name: str, low: bool) -> None:
    sheet = drawn(size, GEOMETRIES[name], low=low)
    assert min(sheet.size) > 200
    assert (np.asarray(sheet) == RED).all(axis=2).any()  # the overview, at least


@pytest.mark.parametrize("name", GEOMETRIES)
def test_without_tiles_the_overview_alone_is_drawn(name: str) -> None:
    sheet = np.asarray(drawn((300, 200), GEOMETRIES[name], low=True))
    rows, columns = np.nonzero((sheet == RED).all(axis=2))
    assert rows.max() - rows.min() == columns.max() - columns.min() > 800  # one square
    assert not (sheet[..., 2].astype(int) - sheet[..., 0] > 100).any()  # no blue: nothing is cut


def test_a_line_of_which_no_feature_is_left_is_shown_as_cut() -> None:
    sheet = np.asarray(drawn((1, 600), GEOMETRIES["published"]))
    grid = sheet[24 : 24 + 900, 24 : 24 + 450]
    assert not (grid == RED).all(axis=2).any()
