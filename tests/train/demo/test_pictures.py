"""The generator: the same seed draws the same picture, and no held-out picture is one of training's."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from llava_edge.train.demo import font
from llava_edge.train.demo.data_set import DATA_SEED
from llava_edge.train.demo.pictures import (
    BAR_STEP,
    DAYS,
    NUMBERS,
    QUADRANTS,
    WORDS,
    draw,
    sample_scene,
    sample_small_scene,
)
from llava_edge.train.demo.questions import ANSWERS
from llava_edge.train.demo.run import LANGUAGE_SEED, LOOKING_SEED
from llava_edge.train.demo.shipped_sets import HELDOUT_PICTURES, HELDOUT_SEED
from llava_edge.train.demo.tower import PLACES, TOWER_SEED
from PIL import Image

from .conftest import HELDOUT, Demo


def pixel_hash(image: Image.Image) -> str:
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()


def test_the_same_seed_draws_the_same_picture() -> None:
    first, second = (draw(sample_scene(np.random.default_rng(11))) for _ in range(2))
    assert pixel_hash(first) == pixel_hash(second)
    assert pixel_hash(first) != pixel_hash(draw(sample_scene(np.random.default_rng(12))))


def test_heldout_pictures_are_none_of_training(demo: Demo) -> None:
    """Seeds differ in their second number, and of what is drawn for training a part is drawn again and compared."""
    heldout = {pixel_hash(Image.open(path)) for path in HELDOUT.glob("*.png")}
    assert len(heldout) == HELDOUT_PICTURES
    seeds = {TOWER_SEED, LANGUAGE_SEED, LOOKING_SEED, DATA_SEED}
    assert len(seeds) == 4
    assert HELDOUT_SEED[1] not in seeds
    assert demo.recipe.seed != HELDOUT_SEED[0]
    for number in range(1000):
        random = np.random.default_rng([demo.recipe.seed, DATA_SEED, number])
        assert pixel_hash(draw(sample_scene(random, random_text=0.3))) not in heldout
    for stage in seeds - {DATA_SEED}:
        for step in range(20):
            random = np.random.default_rng([demo.recipe.seed, stage, step])
            drawn = {pixel_hash(draw(sample_scene(random, random_text=0.3))) for _ in range(16)}
            assert not drawn & heldout


def test_heldout_records_are_whole() -> None:
    records = json.loads((HELDOUT / "questions.json").read_text(encoding="utf-8"))
    assert {record["type"] for record in records} == set(ANSWERS)
    for record in records:
        question, answer = record["conversations"]
        assert question["value"].startswith("<image>\n")
        assert (HELDOUT / record["image"]).exists()
        assert record["answers"] == list(ANSWERS[record["type"]])
        assert not record["answers"] or answer["value"] in record["answers"]
    assert sum(path.stat().st_size for path in HELDOUT.iterdir()) < 1_000_000


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("seed", range(80))
def test_things_stand_apart(seed: int, *, small: bool) -> None:
    random = np.random.default_rng(seed)
    scene = sample_small_scene(random, 48) if small else sample_scene(random)
    things = (*scene.shapes, *scene.signs, *scene.tables, *scene.bars)
    boxes = [thing.box for thing in things]
    assert boxes
    ground = np.zeros((scene.height, scene.width), dtype=int)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= scene.width
        assert 0 <= top < bottom <= scene.height
        ground[top:bottom, left:right] += 1
    assert ground.max() == 1
    for shape in scene.shapes:
        left, top, right, bottom = shape.box
        vertical = "top" if top + bottom < scene.height else "bottom"
        horizontal = "left" if left + right < scene.width else "right"
        assert shape.quadrant == f"{vertical} {horizontal}" in QUADRANTS


def test_bars_differ_in_height_and_tables_fit_a_tile() -> None:
    scenes = [sample_scene(np.random.default_rng(seed)) for seed in range(300)]
    charts = [scene for scene in scenes if scene.bars]
    tables = [scene for scene in scenes if scene.tables]
    assert 30 < len(charts) < 90
    assert 40 < len(tables) < 110
    for scene in charts:
        heights = sorted(bar.height for bar in scene.bars)
        assert min(np.diff(heights)) >= int(BAR_STEP * scene.height) - 1
        assert heights[0] > 0
        assert len({bar.colour for bar in scene.bars}) == len(scene.bars)
    for scene in tables:
        left, top, right, bottom = scene.tables[0].box
        assert right - left <= 46
        assert bottom - top <= 46
        days = [DAYS.index(day) for day, _ in scene.tables[0].rows]
        assert days == sorted(set(days))


def test_every_word_has_its_glyphs_and_its_place_on_a_sign() -> None:
    glyphs = {font.glyph(character).tobytes() for character in font.CHARACTERS}
    assert len(glyphs) == len(font.CHARACTERS) == 36
    assert len(set(WORDS)) == len(WORDS)
    for text in WORDS + NUMBERS:
        assert len(text) <= PLACES
        assert font.text_mask(text).shape == (font.GLYPH_HEIGHT, font.text_width(text))


def test_the_recipe_names_the_grids_of_the_article(demo: Demo) -> None:
    assert set(demo.recipe.tile.grids) == {(2, 2), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (4, 1)}
