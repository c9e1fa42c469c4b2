"""The demo bundle on its held-out pictures: right answers by question type, and what tiles are worth."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.model import Model, load
from .data.heldout import MAX_TOKENS, easy_vqa_questions, heldout, read_questions


@dataclass(frozen=True)
class Score:
    """Right answers of one question type: with tiles, overview alone, and by guessing (shares)."""

    type: str
    questions: int
    tiles: float
    overview: float
    chance: float


def measure(
    model: Path | None,
    *,
    limit: int = 0,
    folder: Path | None = None,
    easy_vqa: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Score]:
    """Ask every question greedily with tiles and with the overview alone; score exact matches.

    ``easy_vqa`` asks the public test set instead of the demo's held-out questions.
    """
    if easy_vqa:
        data, records = easy_vqa_questions(limit)
    else:
        data = folder or heldout()
        records = read_questions(data, limit)
    right: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    with load(model) as loaded:
        for overview_only in (False, True):
            for done, record in enumerate(records, start=1):
                got = _ask(loaded, data, record, overview_only)
                right[overview_only][record["type"]] += _same(got, _expected(record))
                on_progress(done + overview_only * len(records), 2 * len(records))
    return _scores(records, right)


def _ask(model: Model, folder: Path, record: dict[str, Any], overview_only: bool) -> str:
    image = model.encode_image(folder / record["image"], overview_only=overview_only)
    question = record["conversations"][0]["value"].replace("<image>", "").strip()
    return model.ask(question, [image], max_tokens=MAX_TOKENS).text


def _expected(record: dict[str, Any]) -> str:
    return str(record["conversations"][1]["value"])


def _same(got: str, expected: str) -> bool:
    return got.strip().rstrip(".").lower() == expected.strip().rstrip(".").lower()


def _scores(records: Sequence[dict[str, Any]], right: dict[bool, Counter[str]]) -> list[Score]:
    """One score a type; chance is the share of the most frequent right answer, the best blind guess."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        answers[record["type"]][_expected(record).lower()] += 1
    return [
        Score(
            kind,
            total := sum(counts.values()),
            right[False][kind] / total,
            right[True][kind] / total,
            counts.most_common(1)[0][1] / total,
        )
        for kind, counts in sorted(answers.items())
    ]


def table(scores: Sequence[Score]) -> str:
    """The scores as a text table with a line for all questions."""
    total = sum(one.questions for one in scores)

    def mean(name: str) -> float:
        return float(sum(getattr(one, name) * one.questions for one in scores) / total)

    overall = Score("all", total, mean("tiles"), mean("overview"), mean("chance"))
    lines = [f"{'type':<10}{'questions':>10}{'tiles':>10}{'overview':>10}{'chance':>10}"]
    lines += [
        f"{one.type:<10}{one.questions:>10}{one.tiles:>10.1%}{one.overview:>10.1%}{one.chance:>10.1%}"
        for one in [*scores, overall]
    ]
    return "\n".join(lines)
