"""What is told of a question on its way, in this order."""

from __future__ import annotations

from dataclasses import dataclass

from ...runtime.answer import Answer
from ..errors import RequestError
from .interface import Counted


@dataclass(frozen=True)
class Accepted:
    """The question is sound and will be answered; from here on a reply may begin."""

    counted: Counted


@dataclass(frozen=True)
class Encoding:
    """Tiles encoded, of all."""

    done: int
    total: int


@dataclass(frozen=True)
class Reading:
    """Positions of the prompt read, of all; ``cached`` were read before. ``seconds`` since reading began."""

    done: int
    total: int
    cached: int
    seconds: float


@dataclass(frozen=True)
class Text:
    """The next text of the answer."""

    text: str


@dataclass(frozen=True)
class Done:
    """The answer, whole. ``load`` are seconds that this request spent on loading the model."""

    answer: Answer
    load: float


@dataclass(frozen=True)
class Failed:
    """There will be no answer."""

    error: RequestError


@dataclass(frozen=True)
class HungUp:
    """Whoever asked has gone."""


@dataclass(frozen=True)
class StillThere:
    """Whoever asked sends no more: what is sent to them next shows whether they still read."""


Event = Accepted | Encoding | Reading | Text | Done | Failed | HungUp | StillThere
