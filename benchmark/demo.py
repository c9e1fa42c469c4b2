"""The demo bundle on its held-out pictures: right answers by question type, and what tiles are worth."""

from __future__ import annotations

import importlib.resources
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.errors import MissingExtraError, OptionError
from ..runtime.model import Model, load

MAX_TOKENS = 80
"""Answers of the demo set are a word or two, descriptions a few sentences."""
EASY_VQA = "easy-vqa"


@dataclass(frozen=True)
class Score:
    """Right answers of one question type: with tiles, overview alone, and by guessing (shares)."""

    type: str
    questions: int
    tiles: float
    overview: float
    chance: float


def heldout() -> Path:
    """The folder of the held-out set that ships in the package."""
    return Path(__file__).parent / "demo_heldout"


def read_questions(folder: Path, limit: int = 0) -> list[dict[str, Any]]:
    """Records of ``questions.json`` (LLaVA format with ``type``), at most ``limit`` a type."""
    try:
        records: list[dict[str, Any]] = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(
            expected=f"questions.json in {folder}", got=str(error), fix="install the package again"
        ) from error
    taken: Counter[str] = Counter()
    kept = []
    for record in records:
        taken[record["type"]] += 1
        if not limit or taken[record["type"]] <= limit:
            kept.append(record)
    return kept


def easy_vqa_questions(limit: int = 0) -> tuple[Path, list[dict[str, Any]]]:
    """Folder and records of the public easy-VQA test set (Zhou 2019, PyPI ``easy-vqa``), at most ``limit``.

    Raises :class:`MissingExtraError` where the package that carries the set is not installed.
    """
    try:
        folder = Path(str(importlib.resources.files("easy_vqa"))) / "data" / "test"
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            expected="the easy-VQA test set", got="no package easy_vqa", fix="pip install 'llava-edge[benchmark]'"
        ) from error
    questions = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    records = [
        {
            "image": f"images/{picture}.png",
            "type": EASY_VQA,
            "conversations": [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}],
        }
        for question, answer, picture in questions
    ]
    return folder, records[: limit or len(records)]


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
