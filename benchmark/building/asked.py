"""What is asked about the photographs: questions from a file, or one open question each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from ...runtime.errors import DataError
from ...runtime.prompts.conversations import read_samples, shown
from ...runtime.prompts.picture_names import leads_outside, picture_file
from ..data.datasets import check_question
from ..data.published import FREE_FORM_TOKENS
from ..data.questions import Metric, Question
from ..reading.words import normalise

OPEN_QUESTION = "What is in this picture? Describe what matters in it, with any text that can be read."
"""What is asked about each photograph where nobody wrote questions."""
SHORT = 3
"""Words up to which an answer is compared word by word; longer ones are for a judge. A file may say otherwise."""
KEYS = frozenset(
    {"id", "image", "question", "answer", "type", "metric", "accepted", "choices", "max_tokens", "confirmed"}
)
OURS = frozenset({"conversations", "drafted_by", "blind", "cluster"})
"""Further keys of the questions.json that a build writes: what was confirmed there is taken over."""
PICTURES = "pictures"
"""The folder of a benchmark that its pictures are in."""


@dataclass(frozen=True)
class Item:
    """A question about the photograph ``name``. ``answer`` is "" where there is none yet; ``drafted_by`` who wrote it.

    ``more`` are further keys of our folder format, as they are written. ``blind`` is the answer that was given without
    the picture and that is right all the same.
    """

    name: str
    question: str
    answer: str = ""
    confirmed: bool = False
    drafted_by: str = ""
    type: str = "all"
    metric: Metric = "judged"
    blind: str = ""
    more: Mapping[str, Any] | None = None

    def asked(self, picture: Path, *, max_tokens: int = 0) -> Question:
        """The item as a benchmark asks it."""
        more = self.more or {}
        return Question(
            id=self.name,
            type=self.type,
            prompt=self.question,
            images=(picture,),
            answers=(self.answer, *map(str, more.get("accepted", ()))),
            metric=self.metric,
            choices=tuple(map(str, more.get("choices", ()))),
            max_tokens=max_tokens or int(more.get("max_tokens", FREE_FORM_TOKENS)),
        )


@dataclass(frozen=True)
class AskedFile:
    """The questions of a file, and a line about each record that could not be used."""

    items: tuple[Item, ...]
    left_out: tuple[str, ...] = ()


def open_questions(names: Sequence[str]) -> list[Item]:
    """One open question about each picture."""
    return [Item(name, OPEN_QUESTION) for name in names]


def read_asked(file: Path, photos: Path, known: Mapping[str, str]) -> AskedFile:
    """The questions of a JSON or JSONL file of ``image``, ``question`` and optional ``answer``.

    ``known`` leads from the names of all photographs to those that stay: a question about a copy is asked about the
    better one. The same question about the same picture counts once. Raises :class:`DataError` where none is left.
    """
    left_out: list[str] = []
    found: dict[tuple[str, str], Item] = {}
    for index, record in enumerate(read_samples(file).records):
        where = f"record {index} of {file.name}"
        try:
            item = _item(record, photos, known)
        except ValueError as error:
            left_out.append(f"{where}: {error}")
            continue
        key = item.name, normalise(item.question)
        before = found.setdefault(key, item)
        better = (bool(item.answer), item.confirmed) > (bool(before.answer), before.confirmed)
        found[key], other = (item, before) if better else (before, item)
        if other.answer and normalise(other.answer) != normalise(found[key].answer):
            left_out.append(
                f"{where}: the question {shown(item.question, 60)} about {shown(item.name, 60)} stands there twice; "
                f"{shown(found[key].answer, 60)} is taken, and {shown(other.answer, 60)} is not"
            )
    if not found:
        raise DataError(
            expected=f"questions about pictures of {photos} in {file}",
            got=left_out[0],
            fix='write records such as {"image": "a.jpg", "question": "What is it?", "answer": "a cup"}',
        )
    return AskedFile(tuple(found.values()), tuple(left_out))


def _item(record: Any, photos: Path, known: Mapping[str, str]) -> Item:
    if not isinstance(record, dict):
        raise ValueError(f"no object: {shown(record, 80)}")
    if "conversations" in record:
        record = _as_asked(record)
    if unknown := sorted(set(record) - KEYS - OURS):
        raise ValueError(f"the key {shown(unknown[0], 40)}, which is none of {', '.join(sorted(KEYS))}")
    question, answer = (_text(record, key) for key in ("question", "answer"))
    if not question:
        raise ValueError("no question")
    metric: Metric = record.get("metric", "exact" if answer and len(answer.split()) <= SHORT else "judged")
    if metric not in get_args(Metric):
        raise ValueError(f"metric {shown(metric, 40)}, which is none of {', '.join(get_args(Metric))}")
    if metric in ("choice", "number") and not answer:
        raise ValueError(f"no answer, which metric {metric} needs")
    confirmed = record.get("confirmed", bool(answer))
    if not isinstance(confirmed, bool):
        raise ValueError(f"confirmed {shown(confirmed, 40)}, which is neither true nor false")
    more = {key: record[key] for key in ("accepted", "choices", "max_tokens") if key in record}
    item = Item(
        _photograph(record, photos, known),
        question.replace("<image>", "").strip(),
        answer,
        confirmed and bool(answer),
        _text(record, "drafted_by") if answer else "",
        type=_text(record, "type") or "all",
        metric=metric,
        more=more,
    )
    _check_more(more)
    if answer:
        check_question(item.asked(Path()))
    return item


def _as_asked(record: dict[str, Any]) -> dict[str, Any]:
    """A record of a folder that a build wrote, as a question of a file."""
    turns = record["conversations"]
    said = [one.get("value") if isinstance(one, dict) else None for one in turns] if isinstance(turns, list) else []
    if len(said) < 2 or "question" in record or "answer" in record:
        raise ValueError("conversations that are no question and its answer")
    asked = {key: value for key, value in record.items() if key != "conversations"}
    if isinstance(image := record.get("image"), str):
        asked["image"] = image.removeprefix(f"{PICTURES}/")
    return asked | {"question": said[0], "answer": said[1]}


def _check_more(more: Mapping[str, Any]) -> None:
    for key in ("accepted", "choices"):
        value = more.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str | int | float) for one in value):
            raise ValueError(f"{key} {shown(value, 40)}, which is no list of texts")
    tokens = more.get("max_tokens", 1)
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise ValueError(f"max_tokens {shown(tokens, 40)}, which is no number of tokens")


def _text(record: dict[str, Any], key: str) -> str:
    value = record.get(key, "")
    if isinstance(value, int | float) and not isinstance(value, bool) and key == "answer":
        value = str(value)
    if value is None:
        return ""
    if not isinstance(value, str) or any("\ud800" <= one <= "\udfff" for one in value):
        raise ValueError(f"{key} {shown(value, 40)}, which is no text")
    return value.strip()


def _photograph(record: dict[str, Any], photos: Path, known: Mapping[str, str]) -> str:
    name = _text(record, "image")
    if not name:
        raise ValueError("no image")
    if name not in known and not leads_outside(name):
        name = picture_file(photos, name).relative_to(photos).as_posix()
    if name not in known:
        raise ValueError(f"the picture {shown(name, 80)}, which is not among the photographs that can be read")
    return known[name]


def with_more_questions(items: Sequence[Item], proposed: Mapping[str, Sequence[str]]) -> list[Item]:
    """The items, and behind those of each picture the questions that were proposed about it and are new."""
    found: list[Item] = []
    for index, item in enumerate(items):
        found.append(item)
        if item.name not in {later.name for later in items[index + 1 :]}:
            have = {normalise(one.question) for one in items if one.name == item.name}
            for question in proposed.get(item.name, ()):
                if normalise(question) not in have:
                    have.add(normalise(question))
                    found.append(replace(Item(item.name, question), type=item.type))
    return found
