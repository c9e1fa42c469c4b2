"""The demo bundle on its held-out pictures: right answers by question type, and what tiles are worth."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runtime.model import Model, load
from .accuracy.metrics import exact
from .data.datasets import load_questions
from .data.heldout import easy_vqa_questions
from .data.questions import Question
from .reading.words import normalise


@dataclass(frozen=True)
class DemoScore:
    """Right answers of one question type: with tiles, overview alone, and by guessing (shares)."""

    type: str
    questions: int
    tiles: float
    overview: float
    chance: float


def score_demo(
    model: Path | None,
    *,
    limit: int = 0,
    data: str = "demo",
    easy_vqa: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[DemoScore]:
    """Ask every question greedily with tiles and with the overview alone; score exact matches.

    ``easy_vqa`` asks the public test set instead of the demo's held-out questions, ``data`` others
    (:func:`load_questions`). Raises DataError, MissingExtraError and what loading and asking raise.
    """
    given = easy_vqa_questions(limit) if easy_vqa else load_questions(data, limit=limit)
    questions = [one for one in given if one.confirmed]
    right: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    with load(model) as loaded:
        for overview_only in (False, True):
            for done, question in enumerate(questions, start=1):
                right[overview_only][question.type] += int(
                    exact(_ask(loaded, question, overview_only), question.answers)
                )
                on_progress(done + overview_only * len(questions), 2 * len(questions))
    return _scores(questions, right)


def _ask(model: Model, question: Question, overview_only: bool) -> str:
    images = [model.encode_image(image, detail="low" if overview_only else "high") for image in question.images]
    return model.ask(question.prompt, images, max_tokens=question.max_tokens).text


def _scores(questions: Sequence[Question], right: dict[bool, Counter[str]]) -> list[DemoScore]:
    """One score a type; chance is the share of the most frequent right answer, the best blind guess."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        answers[question.type][normalise(question.answers[0])] += 1
    return [
        DemoScore(
            kind,
            total := sum(counts.values()),
            right[False][kind] / total,
            right[True][kind] / total,
            counts.most_common(1)[0][1] / total,
        )
        for kind, counts in sorted(answers.items())
    ]


def table(scores: Sequence[DemoScore]) -> str:
    """The scores as a text table with a line for all questions."""
    total = sum(one.questions for one in scores)

    def mean(name: str) -> float:
        return float(sum(getattr(one, name) * one.questions for one in scores) / total)

    overall = DemoScore("all", total, mean("tiles"), mean("overview"), mean("chance"))
    lines = [f"{'type':<10}{'questions':>10}{'tiles':>10}{'overview':>10}{'chance':>10}"]
    lines += [
        f"{one.type:<10}{one.questions:>10}{one.tiles:>10.1%}{one.overview:>10.1%}{one.chance:>10.1%}"
        for one in [*scores, overall]
    ]
    return "\n".join(lines)
