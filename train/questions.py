"""Questions about a scene, with answers that follow from the scene alone.

Turns about one picture are asked in one conversation, so no turn may give another's answer away: a shape that is asked
about by colour is not asked about by kind, and places are asked for by one attribute only where that attribute is
already the other question's subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from .pictures import COLOURS, KINDS, NUMBERS, QUADRANTS, WORDS, Scene, Shape

MOST_SHAPES: Final = 4

# Every answer a type can have: the length of the list is the chance level.
ANSWERS: Final[dict[str, tuple[str, ...]]] = {
    "colour": tuple(COLOURS),
    "shape": KINDS,
    "count": tuple(str(number) for number in range(MOST_SHAPES + 1)),
    "position": QUADRANTS,
    "read": WORDS + NUMBERS,
}

_COLOUR: Final = ("What colour is the {kind}?", "Which colour does the {kind} have?", "Name the colour of the {kind}.")
_SHAPE: Final = ("What shape is the {colour} thing?", "Which shape is {colour}?", "Name the shape that is {colour}.")
_COUNT_ALL: Final = ("How many shapes are there?", "How many shapes do you see?", "Count the shapes.")
_COUNT_KIND: Final = ("How many {kind}s are there?", "How many {kind}s do you see?", "Count the {kind}s.")
_POSITION: Final = ("Where is the {name}?", "In which corner is the {name}?", "Where do you see the {name}?")
_READ: Final = ("What does the sign say?", "Read the sign.", "What is written on the sign?")


@dataclass(frozen=True)
class Turn:
    """One question and its answer; `type` is a key of `ANSWERS`."""

    type: str
    question: str
    answer: str


def ask(scene: Scene, random: np.random.Generator) -> list[Turn]:
    """All turns that a scene supports, in random order."""
    turns = [_count_all(scene, random), _count_kind(scene, random)]
    for shape in scene.shapes:
        turns.extend(_about_shape(scene, shape, random))
    if scene.signs:
        turns.append(Turn("read", _choose(_READ, random), scene.signs[0].text))
    return [turns[int(index)] for index in random.permutation(len(turns))]


def _choose(choices: Sequence[str], random: np.random.Generator) -> str:
    return choices[int(random.integers(len(choices)))]


def _count_all(scene: Scene, random: np.random.Generator) -> Turn:
    return Turn("count", _choose(_COUNT_ALL, random), str(len(scene.shapes)))


def _count_kind(scene: Scene, random: np.random.Generator) -> Turn:
    """Asks for a kind that is there more often than for one that is not, or zero would be the usual answer."""
    present = [shape.kind for shape in scene.shapes]
    kind = _choose(present if random.random() < 0.75 else KINDS, random)
    return Turn("count", _choose(_COUNT_KIND, random).format(kind=kind), str(present.count(kind)))


def _about_shape(scene: Scene, shape: Shape, random: np.random.Generator) -> list[Turn]:
    only_kind = sum(other.kind == shape.kind for other in scene.shapes) == 1
    only_colour = sum(other.colour == shape.colour for other in scene.shapes) == 1
    turns = []
    if only_kind and (not only_colour or random.random() < 0.5):
        turns.append(Turn("colour", _choose(_COLOUR, random).format(kind=shape.kind), shape.colour))
        name = shape.kind
    elif only_colour:
        turns.append(Turn("shape", _choose(_SHAPE, random).format(colour=shape.colour), shape.kind))
        name = f"{shape.colour} thing"
    else:
        name = f"{shape.colour} {shape.kind}"
        if sum((other.kind, other.colour) == (shape.kind, shape.colour) for other in scene.shapes) > 1:
            return turns
    turns.append(Turn("position", _choose(_POSITION, random).format(name=name), shape.quadrant))
    return turns
