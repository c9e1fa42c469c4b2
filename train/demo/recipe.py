"""The demo's recipe up to its base checkpoint: every number of it, read from a TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TileRecipe:
    size: int
    patch: int
    grids: tuple[tuple[int, int], ...]  # (rows, columns)


@dataclass(frozen=True)
class VisionRecipe:
    hidden: int
    feed_forward: int
    layers: int
    heads: int


@dataclass(frozen=True)
class LlmRecipe:
    hidden: int
    feed_forward: int
    layers: int
    heads: int
    key_value_heads: int
    positions: int
    vocabulary: int


@dataclass(frozen=True)
class StageRecipe:
    """One training stage. `tower_learning_rate` matters only where the tower trains beside the rest."""

    steps: int
    batch: int
    learning_rate: float
    warm_up: int
    tower_learning_rate: float = 0.0


@dataclass(frozen=True)
class DataRecipe:
    """The data set that is drawn for LLaVA's two stages."""

    pictures: int
    captions: int  # of them described for stage 1
    easy_vqa: bool  # whether the public training set is mixed in
    recipe: str  # the reference recipe that trains on it, beside this file


@dataclass(frozen=True)
class Recipe:
    seed: int
    workers: int  # processes that draw pictures ahead of the training step
    compile: bool  # whether torch compiles tower and LLM: a minute or two a stage, then 1.5 times as fast
    tile: TileRecipe
    vision: VisionRecipe
    llm: LlmRecipe
    tower: StageRecipe
    language: StageRecipe
    looking: StageRecipe
    data: DataRecipe


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; `TypeError` names a key that is missing or unknown."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    tile = table.pop("tile")
    grids = tuple((rows, columns) for rows, columns in tile.pop("grids"))
    return Recipe(
        seed=table.pop("seed"),
        workers=table.pop("workers"),
        compile=table.pop("compile"),
        tile=TileRecipe(grids=grids, **tile),
        vision=VisionRecipe(**table.pop("vision")),
        llm=LlmRecipe(**table.pop("llm")),
        data=DataRecipe(**table.pop("data")),
        **{stage: StageRecipe(**values) for stage, values in table.items()},
    )
