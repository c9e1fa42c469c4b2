"""The toy vision tower's pretraining: it stands for CLIP's, which the demo cannot afford.

Every patch is asked what it shows: which kind of shape or a sign, which colour, and for signs which characters are
under it and which character stands in each place of the word. The first of these two teaches the letters, from which
the tower then learns to put the word together; the second alone stayed at chance for all the steps we tried. The
answers are read linearly off the features the connector will see (layer −2, without the class token); the heads are
thrown away afterwards. Tiles are crops at about natural size and, as the overview is one too, whole pictures squeezed
into a tile. Characters are asked for in crops that hold the whole sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from . import font
from .pictures import COLOURS, KINDS, PLATE_MARGIN, Box, Scene, draw, sample_crowded_scene, sample_scale, sample_scene

OBJECTS: Final = ("nothing", *KINDS, "sign")
PLACES: Final = 4  # characters on the longest sign
BLANK: Final = len(font.CHARACTERS)
IGNORED: Final = -100
CROWDED_SHARE: Final = 0.6  # tiles full of signs: more letters a tile
SQUEEZED_SHARE: Final = 0.15  # whole pictures squeezed into a tile, as overviews are
TOWER_SEED: Final = 1  # keeps this stage's pictures apart from every other stage's


Labels = tuple[Tensor, Tensor, Tensor, Tensor]  # PatchLabels' fields in order, stacked over tiles


@dataclass(frozen=True)
class PatchLabels:
    """What every patch of one tile shows; `IGNORED` where a question does not apply."""

    objects: NDArray[np.int64]  # (patches,)
    colours: NDArray[np.int64]  # (patches,)
    local: NDArray[np.int64]  # (patches, 2): the characters under its left and its right half
    characters: NDArray[np.int64]  # (patches, PLACES): all characters of its sign


class PatchHeads(nn.Module):
    """Linear read-outs of the tower's features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.objects = nn.Linear(width, len(OBJECTS))
        self.colours = nn.Linear(width, len(COLOURS))
        self.local = nn.Linear(width, 2 * (BLANK + 1))
        self.characters = nn.Linear(width, PLACES * (BLANK + 1))

    def loss(self, features: Tensor, labels: Labels) -> Tensor:
        """Sum of the cross-entropies. `features`: (tiles, patches, width)."""
        heads = (self.objects, self.colours, self.local, self.characters)
        classes = (len(OBJECTS), len(COLOURS), BLANK + 1, BLANK + 1)
        losses = [
            functional.cross_entropy(
                head(features).reshape(-1, count), label.flatten(), ignore_index=IGNORED, reduction="sum"
            )
            / (label != IGNORED).sum().clamp(min=1)  # a small batch may hold no sign at all
            for head, count, label in zip(heads, classes, labels, strict=True)
        ]
        return torch.stack(losses).sum()

    def reading_accuracy(self, features: Tensor, characters: Tensor) -> float:
        """Share of sign patches from which all characters are read right."""
        asked = characters[..., 0] != IGNORED
        guesses = self.characters(features).unflatten(-1, (PLACES, BLANK + 1)).argmax(-1)
        return float((guesses == characters).all(-1)[asked].float().mean())


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
    """Left and top of a tile cut anywhere out of a picture of `size`, or around one that is smaller."""
    left, top = (int(random.integers(min(0, room), max(0, room) + 1)) for room in (edge - tile_size for edge in size))
    return left, top


def patch_labels(
    scene: Scene, scales: tuple[float, float], origin: tuple[int, int], *, tile_size: int, patch_size: int
) -> PatchLabels:
    """Labels of the patches of a tile cut at `origin` from the scene scaled by `scales` (x, y)."""
    side = tile_size // patch_size
    objects = np.zeros((side, side), dtype=np.int64)
    colours = np.full((side, side), IGNORED, dtype=np.int64)
    local = np.full((side, side, 2), IGNORED, dtype=np.int64)
    characters = np.full((side, side, PLACES), IGNORED, dtype=np.int64)
    for shape in scene.shapes:
        rows, columns = _covered(shape.box, scales, origin, patch_size, side)
        objects[rows, columns] = OBJECTS.index(shape.kind)
        colours[rows, columns] = list(COLOURS).index(shape.colour)
    for sign in scene.signs:
        rows, columns = _covered(sign.box, scales, origin, patch_size, side)
        objects[rows, columns] = OBJECTS.index("sign")
        colours[rows, columns] = IGNORED
        if scales[0] == scales[1] and _inside(sign.box, scales, origin, tile_size):
            characters[rows, columns] = character_indices(sign.text)
            left = (sign.box[0] + PLATE_MARGIN) * scales[0] - origin[0]
            local[rows, columns] = _characters_under(sign.text, left, scales[0], patch_size, side)[columns]
    return PatchLabels(objects.reshape(-1), colours.reshape(-1), local.reshape(-1, 2), characters.reshape(-1, PLACES))


def _characters_under(text: str, left: float, scale: float, patch_size: int, side: int) -> NDArray[np.int64]:
    """The characters at one and three quarters of every column of patches, (side, 2), `BLANK` beside the text."""
    centres = (np.arange(2 * side).reshape(side, 2) + 0.5) * patch_size / 2
    places = np.floor(((centres - left) / scale + font.GLYPH_GAP / 2) / (font.GLYPH_WIDTH + font.GLYPH_GAP))
    indices = np.append(character_indices(text), BLANK)
    outside = (places < 0) | (places >= PLACES)
    return cast(NDArray[np.int64], indices[np.where(outside, PLACES, places).astype(np.int64)])


def character_indices(text: str) -> NDArray[np.int64]:
    """The characters of a sign, padded with `BLANK` to (PLACES,)."""
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
    """`size` tiles, (size, tile_size, tile_size, 3), and their labels."""
    tiles, labels = zip(*(sample_tile(random, tile_size, patch_size) for _ in range(size)), strict=True)
    return torch.from_numpy(np.stack(tiles)), (
        torch.from_numpy(np.stack([label.objects for label in labels])),
        torch.from_numpy(np.stack([label.colours for label in labels])),
        torch.from_numpy(np.stack([label.local for label in labels])),
        torch.from_numpy(np.stack([label.characters for label in labels])),
    )


def pixel_values(tiles: Tensor) -> Tensor:
    """Tiles (N, H, W, 3) in uint8 as the tower's normalised input (N, 3, H, W)."""
    scaled = (tiles.float() / 255 - torch.tensor(OPENAI_CLIP_MEAN)) / torch.tensor(OPENAI_CLIP_STD)
    return scaled.permute(0, 3, 1, 2).contiguous()


def patch_features(tower: CLIPVisionModel, pixels: Tensor, layer: int) -> Tensor:
    """Features of a hidden layer without the class token, (tiles, patches, width)."""
    hidden = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    return cast(Tensor, hidden[layer][:, 1:])


def tower_loss(module: nn.ModuleDict, tiles: Tensor, labels: Labels, *, layer: int) -> Tensor:
    """Loss of a batch of tiles; `module` holds the `tower` and its `heads`."""
    pixels = pixel_values(tiles)
    with torch.autocast("cpu", torch.bfloat16):
        features = patch_features(cast(CLIPVisionModel, module["tower"]), pixels, layer)
    return cast(PatchHeads, module["heads"]).loss(features.float(), labels)
