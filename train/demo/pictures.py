"""The demo's pictures: coloured shapes with a small sign or table, and bar charts, drawn from a seeded generator.

A ``Scene`` is what is true about a picture; ``draw`` turns it into pixels. Questions are asked of the scene, so an
answer is never guessed from pixels. Sizes fit tiles of 48 px: a 2 by 2 grid for about 96 px square, rows and columns
of two to four tiles for the long ones. Shapes stand in quadrants (top left, ...), at most one in each, clear of the
middle lines. Kinds and colours include all of the public easy-VQA set, in its words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from . import font

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in scene pixels; right and bottom exclusive."""

COLOURS: dict[str, tuple[Colour, Colour]] = {
    "red": ((222, 36, 44), (255, 0, 0)),
    "green": ((44, 150, 62), (0, 255, 0)),
    "blue": ((36, 84, 214), (0, 0, 255)),
    "yellow": ((244, 208, 36), (255, 255, 0)),
    "purple": ((140, 60, 180), (160, 32, 240)),
    "orange": ((244, 132, 24), (255, 140, 0)),
    "black": ((18, 18, 22), (0, 0, 0)),
    "brown": ((130, 76, 36), (165, 42, 42)),
    "gray": ((118, 122, 126), (128, 128, 128)),
    "teal": ((16, 124, 118), (0, 128, 128)),
}
"""Every colour has two shades: one of ours and, where the public easy-VQA set has the colour, its own."""
KINDS = ("circle", "rectangle", "triangle", "star")
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
BACKGROUNDS: tuple[Colour, ...] = (
    (238, 238, 234),
    (250, 250, 250),
    (206, 212, 218),
    (236, 226, 208),
    (202, 222, 232),
    (216, 230, 210),
    (240, 232, 244),
    (255, 240, 240),
)
PLATES: tuple[tuple[Colour, Colour], ...] = (
    ((255, 255, 255), (10, 10, 10)),
    ((255, 250, 205), (60, 20, 10)),
    ((20, 30, 90), (255, 255, 255)),
    ((10, 70, 50), (255, 255, 240)),
)
"""(plate, ink): every pair has strong contrast, so that only resolution decides whether a sign can be read."""
_WORD_LIST = (
    "BANK BAR BIKE BOAT BOOK BUS CAB CAFE CAR CAT CITY COAT CUP DESK DOG DOOR EAST EXIT FARM FAST FISH FIRE FOOD FREE "
    "GATE GIFT GOLD GYM HALL HELP HOME HOT ICE INN JAM KEYS LIFT LOCK MAP MENU MILK NEWS OPEN PARK PAY PIER POST PULL "
    "PUSH QUAY RENT ROAD SALE SEAT SHOP SLOW SOUP STOP TAXI TEA TOY TRAM VAN WAIT WALK WAY WEST ZOO"
)
WORDS = tuple(_WORD_LIST.split())
NUMBERS = tuple(str(number) for number in range(10, 100))
DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
PLATE_MARGIN = 2
ROW_PITCH = 11
"""Scene pixels from row to row of a table: more than a patch, so that no patch holds two rows."""
COLUMN_GAP = 5
"""Between a table's labels and its values."""
BAR_STEP = 0.09
"""Bars of a chart differ by at least this share of the picture's height."""
CHART_SHARE = 0.2
TABLE_SHARE = 0.25

_SIZES: tuple[tuple[float, tuple[int, int], tuple[int, int]], ...] = (
    (0.55, (88, 104), (88, 104)),
    (0.10, (92, 104), (46, 52)),
    (0.10, (46, 52), (92, 104)),
    (0.09, (138, 150), (46, 50)),
    (0.08, (46, 50), (138, 150)),
    (0.04, (184, 200), (46, 50)),
    (0.04, (46, 50), (184, 200)),
)
"""(relative frequency, width range, height range): square, wide and tall pictures that land on different grids."""


@dataclass(frozen=True)
class Shape:
    kind: str
    colour: str
    shade: int
    """Index into the colour's shades."""
    quadrant: str
    box: Box


@dataclass(frozen=True)
class Sign:
    text: str
    plate: int
    """Index into PLATES."""
    box: Box


@dataclass(frozen=True)
class Bar:
    """One bar of a chart; ``box`` reaches down to the axis."""

    colour: str
    shade: int
    box: Box

    @property
    def height(self) -> int:
        return self.box[3] - self.box[1]


@dataclass(frozen=True)
class Table:
    """A day and a number in each row; ``box`` is the plate."""

    rows: tuple[tuple[str, str], ...]
    plate: int
    box: Box

    def row_box(self, index: int) -> Box:
        """Where a row's text stands."""
        left, top, right, _ = self.box
        top += PLATE_MARGIN + index * ROW_PITCH
        return left + PLATE_MARGIN, top, right - PLATE_MARGIN, top + font.GLYPH_HEIGHT


@dataclass(frozen=True)
class Scene:
    width: int
    height: int
    background: tuple[Colour, Colour]
    """Colours above and below the horizon."""
    horizon: int
    """Row where the second colour begins."""
    shapes: tuple[Shape, ...] = ()
    signs: tuple[Sign, ...] = ()  # none or one in the demo's pictures, several where the tower learns letters
    bars: tuple[Bar, ...] = ()  # from left to right
    tables: tuple[Table, ...] = ()  # none or one


def sample_scene(random: np.random.Generator, *, random_text: float = 0.0) -> Scene:
    """A scene. ``random_text`` is the share of signs with random letters instead of words and numbers."""
    kind = random.random()
    if kind < CHART_SHARE:
        width, height = (int(edge) for edge in random.integers(88, 105, size=2))
        return sample_chart(random, width, height, most=4)
    width, height = _sample_size(random)
    return _sample_things(random, width, height, with_table=kind < CHART_SHARE + TABLE_SHARE, random_text=random_text)


def sample_small_scene(random: np.random.Generator, side: int) -> Scene:
    """A scene of about ``side`` pixels a side, whose sign or table can be read in a single tile."""
    width, height = (int(edge) for edge in random.integers(side - 3, side + 4, size=2))
    kind = random.random()
    if kind < CHART_SHARE:
        return sample_chart(random, width, height, most=3)
    if kind < CHART_SHARE + TABLE_SHARE:
        return _sample_things(random, width, height, with_table=True, most=0)
    return _sample_things(random, width, height, with_table=False, most=2, random_text=0.3)


def _sample_things(
    random: np.random.Generator, width: int, height: int, *, with_table: bool, most: int = 4, random_text: float = 0.0
) -> Scene:
    """Shapes with a sign; or a table with up to two shapes, where there is room for it."""
    background, horizon = _sample_background(random, height)
    if with_table and (table := _sample_table(random, (width, height))):
        shapes = _sample_shapes(random, width, height, least=0, most=min(most, 2), taken=(table.box,))
        return Scene(width, height, background, horizon, shapes, tables=(table,))
    shapes = _sample_shapes(random, width, height, most=max(most, 1))
    sign = _sample_sign(random, (width, height), tuple(shape.box for shape in shapes), random_text=random_text)
    return Scene(width, height, background, horizon, shapes, () if sign is None else (sign,))


def sample_chart(random: np.random.Generator, width: int, height: int, *, most: int) -> Scene:
    """A chart of two to ``most`` bars that differ in colour and, by ``BAR_STEP`` of the picture or more, in height."""
    count = int(random.integers(2, most + 1)) if most < 4 else int(random.integers(3, most + 1))
    floor, room = height - 5, height - 12
    step = BAR_STEP * height
    slack = np.sort(random.uniform(0, 0.9 * room - count * step, size=count))
    heights = random.permutation((0.1 * room + slack + step * np.arange(count)).astype(int))
    colours = [list(COLOURS)[int(index)] for index in random.permutation(len(COLOURS))[:count]]
    pitch = (width - 10) / count
    bar_width = int(pitch * random.uniform(0.55, 0.8))
    bars = []
    for index in range(count):
        left = 8 + int(index * pitch)
        box = (left, floor - int(heights[index]), left + bar_width, floor)
        bars.append(Bar(colours[index], int(random.integers(2)), box))
    colour = BACKGROUNDS[int(random.integers(len(BACKGROUNDS)))]
    return Scene(width, height, (colour, colour), height, bars=tuple(bars))


def sample_crowded_scene(random: np.random.Generator, side: int, *, signs: int) -> Scene:
    """A square scene to pretrain the tower: a table, or up to ``signs`` signs, half of them with random letters."""
    background, horizon = _sample_background(random, side)
    if random.random() < 0.4 and (table := _sample_table(random, (side, side))):
        return Scene(side, side, background, horizon, tables=(table,))
    placed: list[Sign] = []
    for _ in range(signs):
        sign = _sample_sign(random, (side, side), tuple(sign.box for sign in placed), random_text=0.5)
        placed += [] if sign is None else [sign]
    return Scene(side, side, background, horizon, signs=tuple(placed))


def _sample_background(random: np.random.Generator, height: int) -> tuple[tuple[Colour, Colour], int]:
    first, second = (BACKGROUNDS[int(index)] for index in random.integers(len(BACKGROUNDS), size=2))
    if random.random() < 0.5:
        second = first
    return (first, second), int(height * random.uniform(0.3, 0.8))


def _sample_size(random: np.random.Generator) -> tuple[int, int]:
    weights = np.array([size[0] for size in _SIZES])
    _, widths, heights = _SIZES[int(random.choice(len(_SIZES), p=weights / weights.sum()))]
    return int(random.integers(widths[0], widths[1] + 1)), int(random.integers(heights[0], heights[1] + 1))


def _sample_shapes(
    random: np.random.Generator, width: int, height: int, *, least: int = 1, most: int = 4, taken: tuple[Box, ...] = ()
) -> tuple[Shape, ...]:
    """Shapes in different quadrants; one that would touch a box in ``taken`` is left out."""
    quadrants = random.permutation(4)[: int(random.integers(least, most + 1))]
    colours = list(COLOURS)
    shapes = []
    for quadrant in sorted(int(number) for number in quadrants):
        left, top = (quadrant % 2) * (width // 2), (quadrant // 2) * (height // 2)
        room = (left + 2, top + 2, left + width // 2 - 2, top + height // 2 - 2)
        kind, colour = KINDS[int(random.integers(len(KINDS)))], colours[int(random.integers(len(colours)))]
        size = int(random.integers(13, min(30, room[3] - room[1], room[2] - room[0]) + 1))
        tall = min(room[3] - room[1], max(9, round(size * random.uniform(0.6, 1.4)))) if kind == "rectangle" else size
        box = _box_inside(random, room, size, tall)
        if all(_apart(box, other) for other in taken):
            shapes.append(Shape(kind, colour, int(random.integers(2)), QUADRANTS[quadrant], box))
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
    box = _free_box(random, size, (width, font.GLYPH_HEIGHT + 2 * PLATE_MARGIN), taken)
    return None if box is None else Sign(text, plate, box)


def _sample_table(random: np.random.Generator, size: tuple[int, int]) -> Table | None:
    """A table of two or three days inside one tile, or none where the picture is too small for it."""
    count, plate = int(random.integers(2, 4)), int(random.integers(len(PLATES)))
    days = sorted(int(index) for index in random.permutation(len(DAYS))[:count])
    rows = tuple((DAYS[day], NUMBERS[int(random.integers(len(NUMBERS)))]) for day in days)
    width = font.text_width("MON") + COLUMN_GAP + font.text_width("00") + 2 * PLATE_MARGIN
    height = (count - 1) * ROW_PITCH + font.GLYPH_HEIGHT + 2 * PLATE_MARGIN
    box = _free_box(random, size, (width, height), ())
    return None if box is None else Table(rows, plate, box)


def _free_box(
    random: np.random.Generator, size: tuple[int, int], wanted: tuple[int, int], taken: tuple[Box, ...]
) -> Box | None:
    """A box of ``wanted`` (width, height) clear of ``taken`` and of the edges of tiles, or none after 40 tries."""
    if wanted[0] > size[0] - 2 or wanted[1] > size[1] - 2:
        return None
    for _ in range(40):
        box = _box_inside(random, (1, 1, size[0] - 1, size[1] - 1), *wanted)
        free = all(_apart(box, other) for other in taken)
        if free and not _crosses(box[0], box[2], size[0]) and not _crosses(box[1], box[3], size[1]):
            return box
    return None


def _apart(one: Box, other: Box) -> bool:
    return one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]


def _crosses(start: int, stop: int, length: int) -> bool:
    """Whether start..stop crosses an edge between equal parts of about 48 px of ``length``."""
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
        _draw_plate(image, sign.box, sign.plate, scale)
        _draw_text(image, sign.text, (sign.box[0] + PLATE_MARGIN, sign.box[1] + PLATE_MARGIN), sign.plate, scale)
    for table in scene.tables:
        _draw_table(image, table, scale)
    if scene.bars:
        _draw_chart(canvas, scene, scale)
    return image


def _draw_shape(canvas: ImageDraw.ImageDraw, shape: Shape, scale: int) -> None:
    left, top, right, bottom = (edge * scale for edge in shape.box)
    inner = (left, top, right - 1, bottom - 1)
    colour = COLOURS[shape.colour][shape.shade]
    if shape.kind == "circle":
        canvas.ellipse(inner, fill=colour)
    elif shape.kind == "rectangle":
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


def _draw_chart(canvas: ImageDraw.ImageDraw, scene: Scene, scale: int) -> None:
    """Bars above a black axis, and one at their left."""
    floor = scene.bars[0].box[3] * scale
    canvas.rectangle((4 * scale, floor, (scene.width - 2) * scale, floor + scale - 1), fill=(0, 0, 0))
    canvas.rectangle((4 * scale, 4 * scale, 5 * scale - 1, floor), fill=(0, 0, 0))
    for bar in scene.bars:
        left, top, right, bottom = (edge * scale for edge in bar.box)
        canvas.rectangle((left, top, right - 1, bottom - 1), fill=COLOURS[bar.colour][bar.shade])


def _draw_table(image: Image.Image, table: Table, scale: int) -> None:
    _draw_plate(image, table.box, table.plate, scale)
    for index, (day, number) in enumerate(table.rows):
        left, top, right, _ = table.row_box(index)
        _draw_text(image, day, (left, top), table.plate, scale)
        _draw_text(image, number, (right - font.text_width(number), top), table.plate, scale)


def _draw_plate(image: Image.Image, box: Box, plate: int, scale: int) -> None:
    left, top, right, bottom = (edge * scale for edge in box)
    image.paste(PLATES[plate][0], (left, top, right, bottom))


def _draw_text(image: Image.Image, text: str, corner: tuple[int, int], plate: int, scale: int) -> None:
    """Text in the plate's ink, its top left at ``corner`` in scene pixels."""
    mask = Image.fromarray(font.text_mask(text).astype(np.uint8) * 255)
    mask = mask.resize((mask.width * scale, mask.height * scale), Image.Resampling.NEAREST)
    image.paste(PLATES[plate][1], (corner[0] * scale, corner[1] * scale), mask)
