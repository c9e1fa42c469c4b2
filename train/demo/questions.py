"""Questions about a scene, with answers that follow from the scene alone.

Turns about one picture are asked in one conversation. A shape that is asked about by colour is not asked about by kind,
and places are asked for by one attribute only where that attribute is already the other question's subject, so these
turns do not give each other away. A description says everything, which is why it has a conversation of its own or
opens one: what follows is then a question about what was said as much as about the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .pictures import COLOURS, KINDS, NUMBERS, QUADRANTS, WORDS, Bar, Scene, Shape

MOST_SHAPES = 4
MOST_TURNS = 8
DESCRIBED_SHARE = 0.4
"""Of the conversations to learn from."""

ANSWERS: dict[str, tuple[str, ...]] = {
    "chart": (*COLOURS, "yes", "no"),
    "colour": tuple(COLOURS),
    "count": tuple(str(number) for number in range(MOST_SHAPES + 1)),
    "describe": (),
    "position": QUADRANTS,
    "read": WORDS + NUMBERS,
    "shape": KINDS,
    "table": NUMBERS,
    "yes/no": ("yes", "no"),
}
"""Every answer a type can have; a description is free text."""

_COLOUR = ("What colour is the {kind}?", "Which colour does the {kind} have?", "Name the colour of the {kind}.")
_SHAPE = ("What shape is the {colour} thing?", "Which shape is {colour}?", "Name the shape that is {colour}.")
_COUNT_ALL = ("How many shapes are there?", "How many shapes do you see?", "Count the shapes.")
_COUNT_KIND = ("How many {kind}s are there?", "How many {kind}s do you see?", "Count the {kind}s.")
_POSITION = ("Where is the {name}?", "In which corner is the {name}?", "Where do you see the {name}?")
_READ = ("What does the sign say?", "Read the sign.", "What is written on the sign?")
_TALLEST = (
    "Which bar is the tallest?",
    "What colour is the tallest bar?",
    "Name the colour of the highest bar.",
)
_SHORTEST = (
    "Which bar is the shortest?",
    "What colour is the shortest bar?",
    "Name the colour of the lowest bar.",
)
_TALLER = ("Is the {one} bar taller than the {other} bar?", "Is the {one} bar higher than the {other} one?")
_VALUE = (
    "What is the number for {day}?",
    "Which number stands beside {day}?",
    "Read the value of {day} in the table.",
)
_PRESENT = ("Is there {name}?", "Do you see {name}?", "Does the picture show {name}?")
_HAS_COLOUR = ("Is the {kind} {colour}?",)
_DESCRIBE = ("Describe the picture.", "What do you see?", "What is in the picture?", "Describe what you see.")


@dataclass(frozen=True)
class Exchange:
    """One question and its answer; ``type`` is a key of ``ANSWERS``."""

    type: str
    question: str
    answer: str


def converse(scene: Scene, random: np.random.Generator) -> list[Exchange]:
    """A conversation to learn from: a description and a few questions after it, or questions alone."""
    turns = ask(scene, random)
    if random.random() < DESCRIBED_SHARE:
        return [ask_for_description(scene, random), *turns[:4]]
    return turns[:MOST_TURNS]


def ask(scene: Scene, random: np.random.Generator) -> list[Exchange]:
    """All short questions that a scene supports, in random order."""
    if scene.bars:
        turns = _about_chart(scene.bars, random)
    else:
        turns = [_count_all(scene, random), *_present(scene, random)]
        if scene.shapes:
            turns.append(_count_kind(scene, random))
    for shape in scene.shapes:
        turns.extend(_about_shape(scene, shape, random))
    if scene.signs:
        turns.append(Exchange("read", _choose(_READ, random), scene.signs[0].text))
    for table in scene.tables:
        for day, number in table.rows:
            turns.append(Exchange("table", _choose(_VALUE, random).format(day=day), number))
    return [turns[int(index)] for index in random.permutation(len(turns))]


def ask_for_description(scene: Scene, random: np.random.Generator) -> Exchange:
    return Exchange("describe", _choose(_DESCRIBE, random), describe(scene))


def describe(scene: Scene) -> str:
    """What is in a scene: shapes by quadrant, then the table or the sign; or the bars from left to right."""
    if scene.bars:
        names = [bar.colour for bar in scene.bars]
        tallest, shortest = _ranked(scene.bars)[0].colour, _ranked(scene.bars)[-1].colour
        listed = f"{', '.join(names[:-1])} and {names[-1]}"
        return f"A chart with {len(names)} bars: {listed}. The {tallest} bar is the tallest, {shortest} the shortest."
    sentences = [_sentence(shape) for shape in scene.shapes]
    for table in scene.tables:
        sentences.append(f"A table says {', '.join(f'{day} {number}' for day, number in table.rows)}.")
    sentences += [f"A sign says {sign.text}." for sign in scene.signs]
    return " ".join(sentences)


def facts(scene: Scene, random: np.random.Generator) -> str:
    """All that the questions of ``ask`` can be answered from, in random order: a picture for a model that can't see."""
    sentences = [_sentence(shape) for shape in scene.shapes]
    sentences += [f"A sign says {sign.text}." for sign in scene.signs]
    sentences += [f"Row {day} has {number}." for table in scene.tables for day, number in table.rows]
    ranked = _ranked(scene.bars)
    sentences += [f"The {bar.colour} bar is number {index + 1} of {len(ranked)}." for index, bar in enumerate(ranked)]
    return " ".join(sentences[int(index)] for index in random.permutation(len(sentences)))


def _sentence(shape: Shape) -> str:
    named = _with_article(f"{shape.colour} {shape.kind}")
    return f"{named[0].upper()}{named[1:]} is {shape.quadrant}."


def _with_article(name: str) -> str:
    return f"an {name}" if name.startswith("orange") else f"a {name}"


def _ranked(bars: Sequence[Bar]) -> list[Bar]:
    """Bars from the tallest to the shortest."""
    return sorted(bars, key=lambda bar: -bar.height)


def _choose(choices: Sequence[str], random: np.random.Generator) -> str:
    return choices[int(random.integers(len(choices)))]


def _count_all(scene: Scene, random: np.random.Generator) -> Exchange:
    return Exchange("count", _choose(_COUNT_ALL, random), str(len(scene.shapes)))


def _count_kind(scene: Scene, random: np.random.Generator) -> Exchange:
    """Asks for a kind that is there more often than for one that is not, or zero would be the usual answer."""
    present = [shape.kind for shape in scene.shapes]
    kind = _choose(present if random.random() < 0.75 else KINDS, random)
    return Exchange("count", _choose(_COUNT_KIND, random).format(kind=kind), str(present.count(kind)))


def _present(scene: Scene, random: np.random.Generator) -> list[Exchange]:
    """One or two yes/no questions, as often right as wrong where there are shapes to be right about."""
    turns = []
    for template in (_PRESENT, _HAS_COLOUR):
        if scene.shapes and random.random() < 0.6:
            turns.append(_yes_or_no(scene, scene.shapes[int(random.integers(len(scene.shapes)))], template, random))
    return turns


def _yes_or_no(scene: Scene, shape: Shape, template: Sequence[str], random: np.random.Generator) -> Exchange:
    """Whether the only one of its kind has a colour; or whether a kind, a colour or both are there.

    Half of them are asked about what is there, the others about something drawn until it is not, where that succeeds.
    """
    right = random.random() < 0.5
    if template is _HAS_COLOUR and sum(other.kind == shape.kind for other in scene.shapes) == 1:
        others = [colour for colour in COLOURS if colour != shape.colour]
        colour = shape.colour if right else _choose(others, random)
        return Exchange("yes/no", _choose(template, random).format(kind=shape.kind, colour=colour), _verdict(right))
    form = int(random.integers(3))
    kind, colour, found = shape.kind, shape.colour, True
    for _ in range(20):
        if found == right:
            break
        kind = _choose(KINDS, random) if form != 1 and random.random() < 0.7 else kind
        colour = _choose(tuple(COLOURS), random) if form != 0 and random.random() < 0.7 else colour
        found = any(
            (form == 1 or other.kind == kind) and (form == 0 or other.colour == colour) for other in scene.shapes
        )
    name = (kind, f"{colour} shape", f"{colour} {kind}")[form]
    return Exchange("yes/no", _choose(_PRESENT, random).format(name=_with_article(name)), _verdict(found))


def _verdict(right: bool) -> str:
    return "yes" if right else "no"


def _about_chart(bars: Sequence[Bar], random: np.random.Generator) -> list[Exchange]:
    ranked = _ranked(bars)
    turns = [
        Exchange("chart", _choose(_TALLEST, random), ranked[0].colour),
        Exchange("chart", _choose(_SHORTEST, random), ranked[-1].colour),
        Exchange("count", _choose(_COUNT_KIND, random).format(kind="bar"), str(len(bars))),
    ]
    for _ in range(2):
        one, other = (bars[int(index)] for index in random.permutation(len(bars))[:2])
        question = _choose(_TALLER, random).format(one=one.colour, other=other.colour)
        if all(turn.question != question for turn in turns):
            turns.append(Exchange("chart", question, _verdict(one.height > other.height)))
    return turns


def _about_shape(scene: Scene, shape: Shape, random: np.random.Generator) -> list[Exchange]:
    only_kind = sum(other.kind == shape.kind for other in scene.shapes) == 1
    only_colour = sum(other.colour == shape.colour for other in scene.shapes) == 1
    turns = []
    if only_kind and (not only_colour or random.random() < 0.5):
        turns.append(Exchange("colour", _choose(_COLOUR, random).format(kind=shape.kind), shape.colour))
        name = shape.kind
    elif only_colour:
        turns.append(Exchange("shape", _choose(_SHAPE, random).format(colour=shape.colour), shape.kind))
        name = f"{shape.colour} thing"
    else:
        name = f"{shape.colour} {shape.kind}"
        if sum((other.kind, other.colour) == (shape.kind, shape.colour) for other in scene.shapes) > 1:
            return turns
    turns.append(Exchange("position", _choose(_POSITION, random).format(name=name), shape.quadrant))
    return turns
