"""Rung 0 and 1: geometry for every small size and many large ones, and pixels, against transformers."""

from __future__ import annotations

import functools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies
from llava_edge.runtime.errors import ImageError
from llava_edge.runtime.pictures.geometry import Geometry
from llava_edge.runtime.pictures.tiles import cut_tiles, lay_out, pixels_of
from PIL import Image
from support.checkpoints import GRANITE_GRIDS
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import unpad_image
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
ARTICLE = [(2, 2), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (4, 1)]
RELEASED = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))


def geometry_of(image_size: int, patch_size: int, pinpoints: tuple[tuple[int, int], ...]) -> Geometry:
    return Geometry(image_size, patch_size, pinpoints, MEAN, STD)


GEOMETRIES = {
    "released": geometry_of(336, 14, RELEASED),
    "article": geometry_of(336, 14, tuple((336 * h, 336 * w) for h, w in ARTICLE)),
    "granite": geometry_of(384, 14, tuple((384 * h, 384 * w) for h, w in GRANITE_GRIDS)),
    "small tiles": geometry_of(50, 10, tuple((50 * h, 50 * w) for h, w in ARTICLE)),
}


@functools.cache
def index_map(rows: int, columns: int) -> torch.Tensor:
    """In the place of features: what unpad_image keeps of it shows which rows and columns are kept."""
    return torch.arange(rows * columns).reshape(1, rows, columns)


@functools.cache
def reference_processor(geometry: Geometry) -> SimpleNamespace:
    """As much of transformers' processor as counting positions takes."""
    return SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=[list(one) for one in geometry.pinpoints]),
        patch_size=geometry.patch_size,
        num_additional_image_tokens=0,
        _get_unpadded_features=lambda *arguments: LlavaNextProcessor._get_unpadded_features(None, *arguments),
    )


def reference(size: tuple[int, int], geometry: Geometry) -> dict[str, object] | None:
    """What transformers makes of a (width, height); None where it fails."""
    width, height = size
    processor = reference_processor(geometry)
    best = select_best_resolution((height, width), processor.image_processor.image_grid_pinpoints)
    if best is None:
        return None
    rows, columns = best[0] // geometry.image_size, best[1] // geometry.image_size
    side = geometry.patches_per_side
    kept = unpad_image(index_map(rows * side, columns * side), (height, width))[0]
    resized = get_patch_output_size(SimpleNamespace(shape=(3, height, width)), best, "channels_first")
    count = LlavaNextProcessor._get_number_of_features(
        processor, height, width, geometry.image_size, geometry.image_size
    )
    first = int(kept[0, 0]) if kept.numel() else None
    return {
        "grid": (rows, columns),
        "resized": (resized[1], resized[0]),
        "unpadded": tuple(kept.shape),
        "first": None if first is None else divmod(first, columns * side),
        "image_tokens": count,
    }


def check(size: tuple[int, int], geometry: Geometry) -> None:
    expected = reference(size, geometry)
    if expected is None:
        with pytest.raises(ImageError, match="shorter side"):
            lay_out(size, geometry)
        return
    layout = lay_out(size, geometry)
    got = {
        "grid": layout.grid,
        "resized": layout.resized,
        "unpadded": layout.unpadded,
        "first": layout.feature_offset if expected["first"] is not None else None,
        "image_tokens": layout.image_tokens,
    }
    assert got == expected, size


@pytest.mark.slow
def test_every_size_to_400() -> None:
    """Each in one of the geometries, drawn, so that none gets a pattern of sizes."""
    draw, geometries = random.Random(20261126), list(GEOMETRIES.values())
    for width in range(1, 401):
        for height in range(1, 401):
            check((width, height), draw.choice(geometries))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_random_sizes_to_8000(name: str) -> None:
    draw = random.Random(20261122)
    for _ in range(20_000):
        check((draw.randint(1, 8000), draw.randint(1, 8000)), GEOMETRIES[name])


GRIDS = strategies.lists(strategies.tuples(*[strategies.integers(1, 6)] * 2), min_size=1, max_size=9, unique=True)
SIDES = strategies.integers(1, 8000)


@settings(max_examples=500)
@given(
    width=SIDES,
    height=SIDES,
    patch=strategies.integers(1, 32),
    patches=strategies.integers(1, 40),
    beside=strategies.integers(0, 31),
    grids=GRIDS,
)
def test_any_geometry(
    width: int, height: int, patch: int, patches: int, beside: int, grids: list[tuple[int, int]]
) -> None:
    """``beside`` the last whole patch a tile may have pixels of which a tower takes no patch, as SigLIP's 384 has 6."""
    side = patch * patches + beside % patch
    pinpoints = tuple((side * rows, side * columns) for rows, columns in grids)
    check((width, height), geometry_of(side, patch, pinpoints))


def test_granites_grids() -> None:
    geometry = GEOMETRIES["granite"]
    assert (len(geometry.pinpoints), geometry.features_per_tile) == (27, 729)
    check((3840, 384), geometry)
    assert lay_out((3840, 384), geometry).image_tokens == 729 + 27 * (270 + 1)


@pytest.mark.parametrize(
    ("size", "tokens"), [((300, 200), 1464), ((640, 480), 2340), ((1920, 1080), 1948), ((1070, 150), 1306)]
)
def test_known_token_counts(size: tuple[int, int], tokens: int) -> None:
    """Counts of transformers with the pinpoints that the released checkpoints carry."""
    assert lay_out(size, GEOMETRIES["released"]).image_tokens == tokens


def test_rounding_follows_transformers() -> None:
    """352x748 is a size where the original code's plain int() cuts one more column."""
    check((352, 748), GEOMETRIES["released"])


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("size", [(300, 200), (641, 480), (1070, 150), (97, 1203), (50, 50), (2, 3), (1, 1)])
def test_pixels_are_transformers(name: str, size: tuple[int, int]) -> None:
    """Rung 1: bit-identical tiles before normalisation, at most 1e-6 apart after."""
    geometry = GEOMETRIES[name]
    noise = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), np.uint8)
    picture = Image.fromarray(noise)
    side = geometry.image_size
    processor = LlavaNextImageProcessorPil(
        size={"height": side, "width": side},
        crop_size={"height": side, "width": side},
        image_grid_pinpoints=[list(one) for one in geometry.pinpoints],
    )
    tiles = cut_tiles(picture, lay_out(size, geometry), geometry)
    raw = processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    assert np.array_equal(tiles, raw)
    normalised = processor(picture, return_tensors="np")["pixel_values"][0]
    assert np.abs(pixels_of(picture, geometry) - normalised).max() <= 1e-6


def test_overview_only_is_one_newline_longer_than_a_tile() -> None:
    layout = lay_out((640, 480), GEOMETRIES["released"], overview_only=True)
    assert (layout.grid, layout.tiles, layout.image_tokens) == ((0, 0), 1, 577)
    pixels = pixels_of(Image.new("RGB", (640, 480)), GEOMETRIES["released"], layout)
    assert pixels.shape == (1, 3, 336, 336)
