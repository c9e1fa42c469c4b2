"""The demo's pictures: coloured shapes and a small sign, drawn from a seeded generator.

A `Scene` is what is true about a picture; `draw` turns it into pixels. Questions are asked of the scene, so an answer
is never guessed from pixels. Sizes fit tiles of 48 px: a 2 by 2 grid for about 96 px square, rows and columns of two to
four tiles for the long ones. Shapes stand in quadrants (top left, ...), at most one in each, clear of the middle lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from . import font

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom in scene pixels; right and bottom exclusive

COLOURS: Final[dict[str, Colour]] = {
    "red": (214, 40, 40),
    "green": (44, 150, 62),
    "blue": (36, 84, 214),
    "yellow": (244, 208, 36),
    "purple": (140, 60, 180),
    "orange": (244, 132, 24),
}
KINDS: Final = ("circle", "square", "triangle", "star")
QUADRANTS: Final = ("top left", "top right", "bottom left", "bottom right")
BACKGROUNDS: Final[tuple[Colour, ...]] = (
    (238, 238, 234),
    (206, 212, 218),
    (170, 176, 180),
    (226, 214, 192),
    (202, 222, 232),
    (212, 226, 206),
    (92, 98, 106),
    (52, 56, 64),
)
# (plate, ink): every pair has strong contrast, so that only resolution decides whether a sign can be read.
PLATES: Final[tuple[tuple[Colour, Colour], ...]] = (
    ((255, 255, 255), (10, 10, 10)),
    ((255, 250, 205), (60, 20, 10)),
    ((20, 30, 90), (255, 255, 255)),
    ((10, 70, 50), (255, 255, 240)),
)
_WORD_LIST: Final = (
    "BANK BAR BIKE BOAT BOOK BUS CAB CAFE CAR CAT CITY COAT CUP DESK DOG DOOR EAST EXIT FARM FAST FISH FIRE FOOD FREE "
    "GATE GIFT GOLD GYM HALL HELP HOME HOT ICE INN JAM KEYS LIFT LOCK MAP MENU MILK NEWS OPEN PARK PAY PIER POST PULL "
    "PUSH QUAY RENT ROAD SALE SEAT SHOP SLOW SOUP STOP TAXI TEA TOY TRAM VAN WAIT WALK WAY WEST ZOO"
)
WORDS: Final = tuple(_WORD_LIST.split())
NUMBERS: Final = tuple(str(number) for number in range(10, 100))
PLATE_MARGIN: Final = 2

# (relative frequency, width range, height range): square, wide and tall pictures that land on different grids.
_SIZES: Final[tuple[tuple[float, tuple[int, int], tuple[int, int]], ...]] = (
    (0.55, (88, 104), (88, 104)),
    (0.10, (92, 104), (46, 52)),
    (0.10, (46, 52), (92, 104)),
    (0.09, (138, 150), (46, 50)),
    (0.08, (46, 50), (138, 150)),
    (0.04, (184, 200), (46, 50)),
    (0.04, (46, 50), (184, 200)),
)


@dataclass(frozen=True)
class Shape:
    kind: str
    colour: str
    quadrant: str
    box: Box


@dataclass(frozen=True)
class Sign:
    text: str
    plate: int  # index into PLATES
    box: Box


@dataclass(frozen=True)
class Scene:
    width: int
    height: int
    background: tuple[Colour, Colour]  # colours above and below the horizon
    horizon: int  # row where the second colour begins
    shapes: tuple[Shape, ...]
    signs: tuple[Sign, ...]  # none or one in the demo's pictures, several where the tower learns letters


def sample_scene(random: np.random.Generator, *, random_text: float = 0.0) -> Scene:
    """A scene. `random_text` is the share of signs with random letters instead of words and numbers."""
    width, height = _sample_size(random)
    shapes = _sample_shapes(random, width, height)
    sign = _sample_sign(random, (width, height), tuple(shape.box for shape in shapes), random_text=random_text)
    background, horizon = _sample_background(random, height)
    return Scene(width, height, background, horizon, shapes, () if sign is None else (sign,))


def sample_small_scene(random: np.random.Generator, side: int) -> Scene:
    """A scene of about `side` pixels a side with one or two shapes, whose sign can be read in a single tile."""
    width, height = (int(edge) for edge in random.integers(side - 3, side + 4, size=2))
    shapes = _sample_shapes(random, width, height, most=2)
    sign = _sample_sign(random, (width, height), tuple(shape.box for shape in shapes), random_text=0.3)
    background, horizon = _sample_background(random, height)
    return Scene(width, height, background, horizon, shapes, () if sign is None else (sign,))


def sample_crowded_scene(random: np.random.Generator, side: int, *, signs: int) -> Scene:
    """A square scene full of signs, for the tower's pretraining: up to `signs` of them, half with random letters."""
    placed: list[Sign] = []
    for _ in range(signs):
        sign = _sample_sign(random, (side, side), tuple(sign.box for sign in placed), random_text=0.5)
        placed += [] if sign is None else [sign]
    background, horizon = _sample_background(random, side)
    return Scene(side, side, background, horizon, (), tuple(placed))


def _sample_background(random: np.random.Generator, height: int) -> tuple[tuple[Colour, Colour], int]:
    first, second = (BACKGROUNDS[int(index)] for index in random.integers(len(BACKGROUNDS), size=2))
    if random.random() < 0.5:
        second = first
    return (first, second), int(height * random.uniform(0.3, 0.8))


def _sample_size(random: np.random.Generator) -> tuple[int, int]:
    weights = np.array([size[0] for size in _SIZES])
    _, widths, heights = _SIZES[int(random.choice(len(_SIZES), p=weights / weights.sum()))]
    return int(random.integers(widths[0], widths[1] + 1)), int(random.integers(heights[0], heights[1] + 1))


def _sample_shapes(random: np.random.Generator, width: int, height: int, *, most: int = 4) -> tuple[Shape, ...]:
    quadrants = random.permutation(4)[: int(random.integers(1, most + 1))]
    colours = list(COLOURS)
    shapes = []
    for quadrant in sorted(int(number) for number in quadrants):
        left, top = (quadrant % 2) * (width // 2), (quadrant // 2) * (height // 2)
        room = (left + 2, top + 2, left + width // 2 - 2, top + height // 2 - 2)
        box = _box_inside(random, room, int(random.integers(13, min(24, room[3] - room[1], room[2] - room[0]) + 1)))
        kind, colour = KINDS[int(random.integers(len(KINDS)))], colours[int(random.integers(len(colours)))]
        shapes.append(Shape(kind, colour, QUADRANTS[quadrant], box))
    return tuple(shapes)


def _box_inside(random: np.random.Generator, room: Box, width: int, height: int | None = None) -> Box:
    height = width if height is None else height
    left = int(random.integers(room[0], room[2] - width + 1))
    top = int(random.integers(room[1], room[3] - height + 1))
    return left, top, left + width, top + height


def _sample_text(random: np.random.Generator, random_text: float) -> str:
    if random.random() < random_text:
        return "".join(font.CHARACTERS[int(index)] for index in random.integers(26, size=int(random.integers(3, 5))))
    choices = NUMBERS if random.random() < 0.3 else WORDS
    return choices[int(random.integers(len(choices)))]


def _sample_sign(
    random: np.random.Generator, size: tuple[int, int], taken: tuple[Box, ...], *, random_text: float
) -> Sign | None:
    """A sign on free ground, or none where what is already there leaves no room.

    A sign does not cross the lines that halve or cut the picture at its tile edges, so that no letter is split.
    """
    text, plate = _sample_text(random, random_text), int(random.integers(len(PLATES)))
    width = font.text_width(text) + 2 * PLATE_MARGIN
    height = font.GLYPH_HEIGHT + 2 * PLATE_MARGIN
    for _ in range(40):
        box = _box_inside(random, (1, 1, size[0] - 1, size[1] - 1), width, height)
        free = all(_apart(box, other) for other in taken)
        if free and not _crosses(box[0], box[2], size[0]) and not _crosses(box[1], box[3], size[1]):
            return Sign(text, plate, box)
    return None


def _apart(one: Box, other: Box) -> bool:
    return one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]


def _crosses(start: int, stop: int, length: int) -> bool:
    """Whether start..stop crosses an edge between equal parts of about 48 px of `length`."""
    parts = round(length / 48)
    edges = [length * part / parts for part in range(1, parts)]
    return any(start < edge < stop for edge in edges)


def sample_scale(random: np.random.Generator) -> int:
    """Screen pixels a scene pixel: mostly one; larger pictures are scaled down to the same tiles."""
    return int(random.choice((1, 2, 3, 4), p=(0.7, 0.1, 0.1, 0.1)))


def draw(scene: Scene, *, scale: int = 1) -> Image.Image:
    """The picture of a scene: RGB, (scene.width · scale, scene.height · scale) pixels."""
    image = Image.new("RGB", (scene.width * scale, scene.height * scale), scene.background[0])
    canvas = ImageDraw.Draw(image)
    canvas.rectangle((0, scene.horizon * scale, image.width, image.height), fill=scene.background[1])
    for shape in scene.shapes:
        _draw_shape(canvas, shape, scale)
    for sign in scene.signs:
        _draw_sign(image, sign, scale)
    return image


def _draw_shape(canvas: ImageDraw.ImageDraw, shape: Shape, scale: int) -> None:
    left, top, right, bottom = (edge * scale for edge in shape.box)
    inner = (left, top, right - 1, bottom - 1)
    colour = COLOURS[shape.colour]
    if shape.kind == "circle":
        canvas.ellipse(inner, fill=colour)
    elif shape.kind == "square":
        canvas.rectangle(inner, fill=colour)
    elif shape.kind == "triangle":
        canvas.polygon([((left + right - 1) / 2, top), (right - 1, bottom - 1), (left, bottom - 1)], fill=colour)
    else:
        canvas.polygon(_star_points(inner), fill=colour)


def _star_points(box: Box) -> list[tuple[float, float]]:
    """Ten points of a five-pointed star that fills the box, the first at the top."""
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    radius = (box[2] - box[0]) / 2
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    lengths = np.where(np.arange(10) % 2 == 0, radius, radius * 0.42)
    return [
        (middle[0] + float(np.cos(angle) * length), middle[1] + float(np.sin(angle) * length))
        for angle, length in zip(angles, lengths, strict=True)
    ]


def _draw_sign(image: Image.Image, sign: Sign, scale: int) -> None:
    plate, ink = PLATES[sign.plate]
    left, top, right, bottom = (edge * scale for edge in sign.box)
    image.paste(plate, (left, top, right, bottom))
    mask = Image.fromarray(font.text_mask(sign.text).astype(np.uint8) * 255)
    mask = mask.resize((mask.width * scale, mask.height * scale), Image.Resampling.NEAREST)
    image.paste(ink, (left + PLATE_MARGIN * scale, top + PLATE_MARGIN * scale), mask)
