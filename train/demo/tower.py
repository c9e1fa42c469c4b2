"""The toy vision tower's pretraining: it stands for CLIP's, which the demo cannot afford.

Every patch is asked what it shows: which kind of thing, which colour, where in the tile it lies and whether the middle
of a thing does; for text which characters are under it and which character stands in each place of the word; for a
table's row which day it is; for a bar how many are taller; and whether its tile is an overview: where a thing is can
only be read there, and the LLM has no other quick way to tell an overview's features from a tile's. Characters under a
patch teach the letters, from which the tower then learns to put the word together; the words alone stayed at chance for
all the steps we tried. A row is asked for its number wherever one looks at it, so that a day leads to its number
without a search. The answers are read linearly off the features the connector will see (layer −2, without the class
token); the heads are thrown away afterwards. Tiles are crops at about natural size and, as the overview is one too,
whole pictures squeezed into a tile. Characters are asked for in crops that hold the whole text, the order of bars where
the tile holds them all.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ..data.sequences import IGNORED
from . import font
from .pictures import (
    COLOURS,
    COLUMN_GAP,
    DAYS,
    KINDS,
    PLATE_MARGIN,
    Box,
    Scene,
    Table,
    draw,
    sample_crowded_scene,
    sample_scale,
    sample_scene,
)

OBJECTS = ("nothing", *KINDS, "sign", "table", "bar")
PLACES = 4
"""Characters on the longest sign."""
BLANK = len(font.CHARACTERS)
MOST_BARS = 4
CROWDED_SHARE = 0.5
"""Tiles full of text: more letters a tile."""
SQUEEZED_SHARE = 0.25
"""Whole pictures squeezed into a tile, as overviews are."""
READABLE = 0.8
"""Characters are asked for at this share of their natural size or more."""
TOWER_SEED = 1
"""Keeps this stage's pictures apart from every other stage's."""

QUESTIONS: dict[str, tuple[int, int]] = {
    "objects": (len(OBJECTS), 1),
    "colours": (len(COLOURS), 1),
    "middles": (2, 1),  # whether a thing's middle lies in it
    "local": (BLANK + 1, 2),  # the characters under its left and its right half
    "characters": (BLANK + 1, PLACES),  # all characters of its sign, or of its row's number
    "days": (len(DAYS), 1),
    "ranks": (MOST_BARS, 1),  # bars that are taller than its own
    "whole": (2, 1),  # whether its tile is a whole picture, as overviews are, or cut out of one
}
"""What is asked of every patch: name → (classes, answers a patch)."""

Labels = dict[str, Tensor]
"""By question, (tiles, patches, answers); ``IGNORED`` where a question does not apply."""
PatchLabels = dict[str, NDArray[np.int64]]
"""The same of one tile, (patches, answers)."""


class PatchHeads(nn.Module):
    """Linear read-outs of the tower's features."""

    def __init__(self, width: int, side: int) -> None:
        """``width`` of the features, ``side`` of a tile in patches."""
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, classes * n) for name, (classes, n) in QUESTIONS.items()})
        self.place = nn.Linear(width, 2 * side)
        self.side = side

    def loss(self, features: Tensor, labels: Labels) -> Tensor:
        """Sum of the cross-entropies. ``features``: (tiles, patches, width)."""
        losses = [
            functional.cross_entropy(
                head(features).reshape(-1, QUESTIONS[name][0]),
                labels[name].flatten(),
                ignore_index=IGNORED,
                reduction="sum",
            )
            / (labels[name] != IGNORED).sum().clamp(min=1)  # a small batch may hold no text at all
            for name, head in self.heads.items()
        ]
        return torch.stack([*losses, self._place_loss(features)]).sum()

    def _place_loss(self, features: Tensor) -> Tensor:
        """Whether a patch's row and column can be told from its features."""
        numbers = torch.arange(self.side**2)
        places = torch.stack((numbers // self.side, numbers % self.side), dim=-1).expand(len(features), -1, -1)
        return functional.cross_entropy(self.place(features).reshape(-1, self.side), places.flatten())

    def accuracy(self, name: str, features: Tensor, labels: Tensor) -> float:
        """Share of the patches asked of which every answer to a question is right."""
        asked = labels[..., 0] != IGNORED
        guesses = self.heads[name](features).unflatten(-1, (QUESTIONS[name][1], QUESTIONS[name][0])).argmax(-1)
        return float((guesses == labels).all(-1)[asked].float().mean())


def sample_tile(random: np.random.Generator, tile_size: int, patch_size: int) -> tuple[NDArray[np.uint8], PatchLabels]:
    """A tile, (tile_size, tile_size, 3) pixels, and what its patches show."""
    kind = random.random()
    if kind < CROWDED_SHARE:
        scene = sample_crowded_scene(random, round(tile_size * random.uniform(1.0, 1.1)), signs=5)
    else:
        scene = sample_scene(random, random_text=0.5)
    squeezed = kind > 1 - SQUEEZED_SHARE
    scale = float(random.uniform(0.93, 1.07))
    scales = (tile_size / scene.width, tile_size / scene.height) if squeezed else (scale, scale)
    size = round(scene.width * scales[0]), round(scene.height * scales[1])
    image = draw(scene, scale=sample_scale(random)).resize(size, Image.Resampling.BICUBIC)
    origin = _crop_origin(random, size, tile_size)
    tile = image.crop((*origin, origin[0] + tile_size, origin[1] + tile_size))
    return np.asarray(tile), patch_labels(scene, scales, origin, tile_size=tile_size, patch_size=patch_size)


def _crop_origin(random: np.random.Generator, size: tuple[int, int], tile_size: int) -> tuple[int, int]:
    """Left and top of a tile cut anywhere out of a picture of ``size``, or around one that is smaller."""
    left, top = (int(random.integers(min(0, room), max(0, room) + 1)) for room in (edge - tile_size for edge in size))
    return left, top


def patch_labels(
    scene: Scene, scales: tuple[float, float], origin: tuple[int, int], *, tile_size: int, patch_size: int
) -> PatchLabels:
    """Labels of the patches of a tile cut at ``origin`` from the scene scaled by ``scales`` (x, y)."""
    side = tile_size // patch_size
    labels = {name: np.full((side, side, count), IGNORED, dtype=np.int64) for name, (_, count) in QUESTIONS.items()}
    labels["objects"][:], labels["middles"][:] = 0, 0
    size = round(scene.width * scales[0]), round(scene.height * scales[1])
    labels["whole"][:] = int(size == (tile_size, tile_size) and min(scales) < READABLE)

    def mark(box: Box, thing: str) -> tuple[slice, slice]:
        place = _covered(box, scales, origin, patch_size, side)
        labels["objects"][place], labels["colours"][place] = OBJECTS.index(thing), IGNORED
        return place

    def mark_coloured(box: Box, thing: str, colour: str) -> tuple[slice, slice]:
        place = mark(box, thing)
        labels["colours"][place] = list(COLOURS).index(colour)
        row, column = _middle(box, scales, origin, patch_size)
        if 0 <= row < side and 0 <= column < side:
            labels["middles"][row, column] = 1
        return place

    readable = scales[0] == scales[1] >= READABLE
    whole = all(_inside(bar.box, scales, origin, tile_size) for bar in scene.bars)
    for shape in scene.shapes:
        mark_coloured(shape.box, shape.kind, shape.colour)
    for bar in scene.bars:
        place = mark_coloured(bar.box, "bar", bar.colour)
        if whole:
            labels["ranks"][place] = sum(other.height > bar.height for other in scene.bars)
    for sign in scene.signs:
        place = mark(sign.box, "sign")
        if readable and _inside(sign.box, scales, origin, tile_size):
            labels["characters"][place] = character_indices(sign.text)
            left = (sign.box[0] + PLATE_MARGIN) * scales[0] - origin[0]
            labels["local"][place] = _characters_under(sign.text, left, scales[0], patch_size, side)[place[1]]
    for table in scene.tables:
        mark(table.box, "table")
        if readable and _inside(table.box, scales, origin, tile_size):
            _label_rows(labels, table, scales, origin, patch_size, side)
    return {name: values.reshape(side * side, -1) for name, values in labels.items()}


def _label_rows(
    labels: PatchLabels, table: Table, scales: tuple[float, float], origin: tuple[int, int], patch_size: int, side: int
) -> None:
    """A row's labels go to the patches through which its middle runs."""
    for index, (day, number) in enumerate(table.rows):
        box = table.row_box(index)
        columns = _covered(box, scales, origin, patch_size, side)[1]
        row = min(max(_middle(box, scales, origin, patch_size)[0], 0), side - 1)
        labels["days"][row, columns] = DAYS.index(day)
        labels["characters"][row, columns] = character_indices(number)
        left = box[0] * scales[0] - origin[0]
        halves = _characters_under(day, left, scales[0], patch_size, side)
        beyond = left + (font.text_width(day) + COLUMN_GAP / 2) * scales[0]
        start = (box[2] - font.text_width(number)) * scales[0] - origin[0]
        digits = _characters_under(number, start, scales[0], patch_size, side)
        right = (np.arange(2 * side).reshape(side, 2) + 0.5) * patch_size / 2 > beyond
        labels["local"][row, columns] = np.where(right, digits, halves)[columns]


def _middle(box: Box, scales: tuple[float, float], origin: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Row and column of the patch where a box has its middle; outside the tile they are negative or too large."""
    left, top, right, bottom = _in_tile(box, scales, origin)
    return int((top + bottom) / 2 // patch_size), int((left + right) / 2 // patch_size)


def _characters_under(text: str, left: float, scale: float, patch_size: int, side: int) -> NDArray[np.int64]:
    """The characters at one and three quarters of every column of patches, (side, 2), ``BLANK`` beside the text."""
    centres = (np.arange(2 * side).reshape(side, 2) + 0.5) * patch_size / 2
    places = np.floor(((centres - left) / scale + font.GLYPH_GAP / 2) / (font.GLYPH_WIDTH + font.GLYPH_GAP))
    indices = np.append(character_indices(text), BLANK)
    outside = (places < 0) | (places >= PLACES)
    return cast(NDArray[np.int64], indices[np.where(outside, PLACES, places).astype(np.int64)])


def character_indices(text: str) -> NDArray[np.int64]:
    """The characters of a sign, padded with ``BLANK`` to (PLACES,)."""
    indices = [font.CHARACTERS.index(character) for character in text]
    return np.array(indices + [BLANK] * (PLACES - len(indices)), dtype=np.int64)


def _in_tile(box: Box, scales: tuple[float, float], origin: tuple[int, int]) -> tuple[float, float, float, float]:
    return (
        box[0] * scales[0] - origin[0],
        box[1] * scales[1] - origin[1],
        box[2] * scales[0] - origin[0],
        box[3] * scales[1] - origin[1],
    )


def _inside(box: Box, scales: tuple[float, float], origin: tuple[int, int], tile_size: int) -> bool:
    left, top, right, bottom = _in_tile(box, scales, origin)
    return left >= -1 and top >= -1 and right <= tile_size + 1 and bottom <= tile_size + 1


def _covered(
    box: Box, scales: tuple[float, float], origin: tuple[int, int], patch_size: int, side: int
) -> tuple[slice, slice]:
    """Rows and columns of patches of which a box covers at least a quarter of the width and of the height."""
    left, top, right, bottom = _in_tile(box, scales, origin)
    margin = patch_size / 4

    def span(start: float, stop: float) -> slice:
        first = int(np.floor((start + margin) / patch_size))
        last = int(np.ceil((stop - margin) / patch_size))
        return slice(min(max(first, 0), side), min(max(last, 0), side))

    return span(top, bottom), span(left, right)


def sample_batch(random: np.random.Generator, size: int, *, tile_size: int, patch_size: int) -> tuple[Tensor, Labels]:
    """``size`` tiles, (size, tile_size, tile_size, 3), and their labels."""
    tiles, labels = zip(*(sample_tile(random, tile_size, patch_size) for _ in range(size)), strict=True)
    stacked = {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in QUESTIONS}
    return torch.from_numpy(np.stack(tiles)), stacked


def pixel_values(tiles: Tensor) -> Tensor:
    """Tiles (N, H, W, 3) in uint8 as the tower's normalised input (N, 3, H, W)."""
    scaled = (tiles.float() / 255 - torch.tensor(OPENAI_CLIP_MEAN)) / torch.tensor(OPENAI_CLIP_STD)
    return scaled.permute(0, 3, 1, 2).contiguous()


def patch_features(tower: CLIPVisionModel, pixels: Tensor, layer: int) -> Tensor:
    """Features of a hidden layer without the class token, (tiles, patches, width)."""
    hidden = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    return cast(Tensor, hidden[layer][:, 1:])


def tower_loss(module: nn.ModuleDict, tiles: Tensor, labels: Labels, *, layer: int) -> Tensor:
    """Loss of a batch of tiles; ``module`` holds the ``tower`` and its ``heads``."""
    pixels = pixel_values(tiles)
    with torch.autocast("cpu", torch.bfloat16):
        features = patch_features(cast(CLIPVisionModel, module["tower"]), pixels, layer)
    return cast(PatchHeads, module["heads"]).loss(features.float(), labels)
