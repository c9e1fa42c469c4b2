"""Questions from a folder in LLaVA's format, and the held-out demo set that ships in the package.

A folder holds pictures and one JSON file: a list of ``{"id", "image", "conversations": [{"from":
"human"|"gpt", "value"}]}``. ``image`` is a path below the folder, or a list of them. Beyond LLaVA's
own keys a record may have ``type``, ``metric`` (one of ``questions.Metric``), ``accepted`` (other
right answers), ``choices`` and ``max_tokens``.
"""

from __future__ import annotations

import json
import typing
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..runtime.errors import OptionError
from .demo import heldout
from .questions import Metric, Question

QUESTIONS = "questions.json"
PLACEHOLDER = "<image>"
UNTYPED = "question"
"""The type of a record that names none."""


def demo_questions() -> list[Question]:
    """The held-out demo set."""
    return folder_questions(heldout())


def folder_questions(folder: Path) -> list[Question]:
    """Every record's first question; later turns lean on earlier answers and are left out.

    Pictures are not opened here. Raises :class:`OptionError` where the folder or a record is not in
    the format.
    """
    path = _questions_file(folder)
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(expected=f"JSON in {path}", got=str(error), fix="check the file") from error
    if not isinstance(records, list) or not records:
        _refuse(str(path), "a list of records", type(records).__name__ if records else "an empty one")
    return [_question(record, folder, f"{path}, record {index}") for index, record in enumerate(records)]


def spread(questions: Sequence[Question], limit: int) -> list[Question]:
    """At most ``limit`` questions (0: all), each type's first ones in turn, in the order of the data."""
    if not limit:
        return list(questions)
    rank: Counter[str] = Counter()
    turns = []
    for index, question in enumerate(questions):
        turns.append((rank[question.type], index))
        rank[question.type] += 1
    return [questions[index] for index in sorted(index for _, index in sorted(turns)[:limit])]


def _questions_file(folder: Path) -> Path:
    if (folder / QUESTIONS).is_file():
        return folder / QUESTIONS
    found = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if len(found) != 1:
        what = f"{len(found)} JSON files" if folder.is_dir() else "no such folder"
        _refuse(str(folder), f"a folder with {QUESTIONS} or one other JSON file", what)
    return found[0]


def _question(record: Any, folder: Path, where: str) -> Question:
    if not isinstance(record, dict):
        _refuse(where, "an object", type(record).__name__)
    prompt, answer = _first_exchange(record, where)
    metric = record.get("metric", "exact")
    if metric not in typing.get_args(Metric):
        _refuse(where, f"a metric among {', '.join(typing.get_args(Metric))}", repr(metric))
    return Question(
        id=str(record.get("id", where.rsplit(" ", 1)[1])),
        type=str(record.get("type", UNTYPED)),
        prompt=prompt,
        images=tuple(_picture(folder, name, where) for name in _listed(record.get("image", []))),
        answers=(answer, *_texts(record, "accepted", where)),
        metric=metric,
        choices=_texts(record, "choices", where),
        max_tokens=_max_tokens(record, where),
    )


def _first_exchange(record: dict[str, Any], where: str) -> tuple[str, str]:
    turns = record.get("conversations")
    first = turns[:2] if isinstance(turns, list) else []
    speakers = [turn.get("from") if isinstance(turn, dict) else None for turn in first]
    if speakers != ["human", "gpt"]:
        _refuse(where, "conversations that begin with a human and a gpt turn", repr(turns)[:80])
    asked, answered = (str(turn.get("value", "")) for turn in first)
    return asked.replace(PLACEHOLDER, "").strip(), answered.strip()


def _picture(folder: Path, name: Any, where: str) -> Path:
    path = folder / str(name)
    if not path.is_file():
        _refuse(where, f"a picture at {path}", "no such file")
    return path


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _texts(record: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = record.get(key, [])
    if not isinstance(value, list):
        _refuse(where, f"a list as {key}", repr(value)[:80])
    return tuple(map(str, value))


def _max_tokens(record: dict[str, Any], where: str) -> int:
    value = record.get("max_tokens", Question.max_tokens)
    if not isinstance(value, int) or value < 1:
        _refuse(where, "max_tokens of 1 or more", repr(value))
    return value


def _refuse(where: str, expected: str, got: str) -> NoReturn:
    raise OptionError(expected=f"{expected} in {where}", got=got, fix="see docs/benchmark.md for the format")
