"""Questions about pictures, whatever data set they come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Metric = Literal["exact", "choice", "number", "anls", "judged"]


@dataclass(frozen=True)
class Question:
    """One question. ``images`` are files or encoded pictures (PNG, JPEG, ... bytes), in the order of the prompt."""

    id: str
    type: str
    """What the accuracy is broken down by: a question type or a subject."""
    prompt: str
    """The text as the model is given it, without image placeholders."""
    images: tuple[Path | bytes, ...]
    answers: tuple[str, ...]
    """Every accepted answer; for ``choice`` the letter; for ``judged`` the reference answer."""
    metric: Metric
    choices: tuple[str, ...] = ()
    """The texts of a multiple choice question, A first."""
    max_tokens: int = 32
    confirmed: bool = True
    """Whether somebody vouches for the answers. Where nobody does, the question is asked and not scored."""


class QuestionList(list[Question]):
    """Questions, and one line for each record of their data set that could not be one."""

    def __init__(self, questions: Iterable[Question] = (), *, left_out: Iterable[str] = ()) -> None:
        super().__init__(questions)
        self.left_out = tuple(left_out)
