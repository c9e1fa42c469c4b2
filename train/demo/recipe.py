"""The demo's recipe up to its base checkpoint: every number of it, read from a TOML file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ...runtime.errors import OptionError
from ..recipe import HIGHEST_RATE, read_recipe, read_toml

FEWEST_TOKENS = 256 + 6
"""A token a byte, and the special ones."""
MOST = 2**24
"""Of anything: above it a number is a slip."""


@dataclass(frozen=True)
class TileRecipe:
    """``size`` and ``patch`` are sides in pixels, ``grids`` (rows, columns) of tiles."""

    size: int
    patch: int
    grids: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TowerRecipe:
    """The vision tower's shape."""

    hidden: int
    feed_forward: int
    layers: int
    heads: int


@dataclass(frozen=True)
class LlmRecipe:
    """The language model's shape; ``positions`` of its context, ``vocabulary`` in tokens."""

    hidden: int
    feed_forward: int
    layers: int
    heads: int
    key_value_heads: int
    positions: int
    vocabulary: int


@dataclass(frozen=True)
class DemoStage:
    """One stage of pretraining. ``tower_learning_rate`` matters only where the tower trains beside the rest."""

    steps: int
    batch: int
    learning_rate: float
    warm_up: int
    tower_learning_rate: float = 0.0


@dataclass(frozen=True)
class DrawnData:
    """The data set that is drawn for LLaVA's two stages.

    ``captions`` of the ``pictures`` are described for stage 1; ``easy_vqa`` mixes the public training set in;
    ``recipe`` is the file, beside this one, of the recipe that trains on it.
    """

    pictures: int
    captions: int
    easy_vqa: bool
    recipe: str


@dataclass(frozen=True)
class DemoRecipe:
    """The whole recipe.

    ``workers`` are processes that draw pictures ahead of the training step. ``compile`` lets torch compile tower and
    LLM: a minute or two a stage, then 1.5 times as fast.
    """

    seed: int
    workers: int
    compile: bool
    tile: TileRecipe
    vision: TowerRecipe
    llm: LlmRecipe
    tower: DemoStage
    language: DemoStage
    looking: DemoStage
    data: DrawnData


def load_demo_recipe(path: Path) -> DemoRecipe:
    """Read and check a recipe. Raises :class:`OptionError` that names the key."""
    recipe = read_recipe(DemoRecipe, read_toml(path), path.name)
    for name in ("tile", "vision", "llm", "tower", "language", "looking", "data"):
        for key, value in dataclasses.asdict(getattr(recipe, name)).items():
            rate = key.endswith("learning_rate")
            most = HIGHEST_RATE if rate else MOST
            least_is_fine = value == 0 and key == "tower_learning_rate"
            if type(value) in (int, float) and not (least_is_fine or 0 < value <= most):
                _refuse(f"a positive {name}.{key} of at most {most:g}", value, path)
    tile, tower, llm = recipe.tile, recipe.vision, recipe.llm
    if not tile.grids or not all(1 <= side <= 100 for grid in tile.grids for side in grid):
        _refuse("tile.grids of one tile or more, and at most 100 a side,", list(tile.grids), path)
    if tile.size % tile.patch:
        _refuse("a tile.size that tile.patch divides", f"{tile.size} and {tile.patch}", path)
    if tower.hidden % tower.heads or llm.hidden % llm.heads or llm.heads % llm.key_value_heads:
        _refuse("heads that divide hidden, and key_value_heads that divide heads", "others", path)
    if llm.vocabulary < FEWEST_TOKENS:
        _refuse(f"an llm.vocabulary of {FEWEST_TOKENS} or more", llm.vocabulary, path)
    if min(recipe.seed, recipe.workers) < 0:
        _refuse("seed and workers of 0 or more", f"{recipe.seed} and {recipe.workers}", path)
    return recipe


def _refuse(expected: str, got: object, path: Path) -> NoReturn:
    raise OptionError(expected=f"{expected} in {path}", got=str(got)[:120], fix="correct the recipe")
