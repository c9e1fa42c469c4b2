"""Where questions come from: the bundled held-out set, a folder in LLaVA format, or a published data set."""

from __future__ import annotations

import itertools
import os
import string
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from ...runtime.errors import DataError, ImageError
from ...runtime.pictures.picture import load_picture
from ...runtime.prompts.conversations import Conversation, SampleError, SampleFile, find_samples, read_samples, shown
from ...runtime.prompts.picture_names import leads_outside, picture_file
from ..reading.numbers import read_number
from .heldout import MAX_TOKENS, heldout
from .parquet import Row, read_rows
from .published import FREE_FORM_TOKENS, PUBLISHED
from .questions import Metric, Question, QuestionList

_ODD = (
    *(ValueError, KeyError, IndexError, TypeError, AttributeError, ArithmeticError),
    *(SyntaxError, RecursionError, MemoryError),  # what ast.literal_eval makes of odd lists
)
"""What a row raises that is not as its data set publishes it."""
SHOWN = 200
"""Characters of a row's fault that an error repeats."""


def load_questions(data: str, *, limit: int = 0, unconfirmed: bool = False) -> QuestionList:
    """Load ``data``: ``demo``, a folder in LLaVA format, or ``NAME:SOURCE`` for a published data set.

    NAME is one of :data:`PUBLISHED`, SOURCE a parquet file, a folder of them, or a hub id. ``limit``
    keeps the first so many questions of each type; 0 keeps all. Ids are unique in what comes back.
    ``unconfirmed`` takes answers that nobody has confirmed as if somebody had.
    Pictures of a folder stay files; those of parquet are their encoded bytes. A record that can't be asked, as one
    whose picture is broken, is left out and named in ``left_out`` of what comes back. Raises :class:`DataError` where
    none is left, and MissingExtraError for parquet without the extra ``[benchmark]``.
    """
    left_out: list[DataError] = []
    questions = list(_unique(_first_of_each_type(_usable(_read(data), left_out), limit)))
    if left_out and not questions:
        raise left_out[0]
    if unconfirmed:
        questions = [replace(one, confirmed=True) for one in questions]
    return QuestionList(questions, left_out=map(str, left_out))


def _usable(found: Iterable[Question | DataError], left_out: list[DataError]) -> Iterator[Question]:
    for one in found:
        if isinstance(one, DataError):
            left_out.append(one)
        else:
            yield one


def _read(data: str) -> Iterator[Question | DataError]:
    name, colon, source = data.partition(":")
    if data == "demo":
        return (
            one if isinstance(one, DataError) else replace(one, max_tokens=MAX_TOKENS) for one in read_folder(heldout())
        )
    if colon and name in PUBLISHED and source:
        return _read_published(name, source)
    folder = Path(os.path.expanduser(data))
    if folder.is_dir():
        return read_folder(folder)
    raise DataError(
        expected=f"demo, a folder in LLaVA format, or NAME:PATH with NAME among {', '.join(PUBLISHED)}",
        got=repr(data),
        fix=f"for example {data}:{PUBLISHED[data].hub}" if data in PUBLISHED else "check the name or the path",
    )


def _read_published(name: str, source: str) -> Iterator[Question | DataError]:
    published = PUBLISHED[name]
    for index, row in enumerate(read_rows(source, published.split, published.columns)):
        try:
            yield _askable(published.question(index, row))
        except _ODD as error:
            yield _odd_row(name, source, index, row, error)


def _odd_row(name: str, source: str, index: int, row: Row, error: BaseException) -> DataError:
    said = error.got if isinstance(error, ImageError) else str(error)
    known = next((row[key] for key in ("id", "pid", "question_id") if row.get(key) is not None), None)
    named = "" if known is None else f" ({shown(known, 60)})"
    return DataError(
        expected=f"row {index}{named} of {source} as {name} publishes it",
        got=f"{type(error).__name__}: {said}"[:SHOWN],
        fix="check that the name before the colon fits the data set",
    )


def _askable(question: Question) -> Question:
    """The question, if it can be asked and scored: a fault that shows then would end a run of hours.

    Its pictures are decoded once, as the model's are. Raises ImageError, ValueError.
    """
    check_question(question)
    for image in question.images:
        load_picture(image)
    return question


def check_question(question: Question) -> None:
    """Refuse texts that are none, and right answers that the question's metric can't have. Raises ValueError."""
    texts = (question.id, question.type, question.prompt, *question.answers, *question.choices)
    if wrong := [one for one in texts if not isinstance(one, str)]:
        raise ValueError(f"{wrong[0]!r} where words belong")
    letters = string.ascii_uppercase[: len(question.choices) or None]
    if question.metric == "choice" and not {one.strip().upper() for one in question.answers} <= set(letters):
        raise ValueError(f"the answer {question.answers[0]!r} to {len(question.choices)} choices")
    if question.metric == "number" and all(read_number(one) is None for one in question.answers):
        raise ValueError(f"the answer {question.answers[0]!r}, which is no number")
    if question.max_tokens < 1:
        raise ValueError(f"max_tokens {question.max_tokens}")


def read_folder(folder: Path) -> Iterator[Question | DataError]:
    """Questions of ``questions.json`` in ``folder``, or of its only file: LLaVA's JSON format.

    A record's first turn is the question and the second the right answer; later turns are left out.
    Beside LLaVA's ``id``, ``image`` (a path inside the folder, or a list) and
    ``conversations`` a record may have ``type``, ``metric``, ``accepted`` (further right answers),
    ``choices``, ``max_tokens`` and ``confirmed``: an answer of which that is false is not scored. A record that can't
    be used comes as the error about it. Raises :class:`DataError` where there is no list of records.
    """
    samples = read_samples(find_samples(folder))
    for index in range(len(samples)):
        yield read_folder_record(folder, samples, index)


def read_folder_record(folder: Path, samples: SampleFile, index: int, *, decode: bool = True) -> Question | DataError:
    """The question that one record is, or what is wrong with it; its pictures are opened where ``decode``."""
    try:
        question = _question(folder, samples.conversation(index), samples.records[index])
        return _decoded(question, samples.conversation(index)) if decode else question
    except DataError as error:
        return error


def _question(folder: Path, conversation: Conversation, record: dict[str, Any]) -> Question:
    asked, answered = conversation.messages[:2]
    if (asked.role, answered.role) != ("user", "assistant"):
        raise SampleError(conversation.where, expected="conversations that begin with human, gpt", got="others")
    metric: Metric = record.get("metric", "exact")
    try:
        if metric not in get_args(Metric):
            raise ValueError(f"metric {metric!r}, which is none of {', '.join(get_args(Metric))}")
        if not isinstance(confirmed := record.get("confirmed", True), bool):
            raise ValueError(f"confirmed {confirmed!r}, which is neither true nor false")
        question = Question(
            id=conversation.id,
            type=str(record.get("type", "all")),
            prompt=asked.text,
            images=tuple(_inside(folder, name) for name in conversation.images[: asked.images]),
            answers=(answered.text, *_words(record, "accepted")),
            metric=metric,
            choices=_words(record, "choices"),
            max_tokens=int(record.get("max_tokens", FREE_FORM_TOKENS if metric == "judged" else Question.max_tokens)),
            confirmed=confirmed,
        )
        check_question(question)
        return question
    except (ValueError, TypeError, OverflowError) as error:
        raise SampleError(
            conversation.where, expected="a question, its pictures and how it is scored", got=shown(str(error), 160)
        ) from error


def _decoded(question: Question, conversation: Conversation) -> Question:
    try:
        return _askable(question)
    except ImageError as error:
        raise SampleError(conversation.where, expected=error.expected, got=shown(error.got, 160)) from error


def _words(record: dict[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts or numbers; a text alone is no list of its letters."""
    value = record.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str | int | float) for one in value):
        raise ValueError(f"{key} {value!r}, which is no list of texts")
    return tuple(map(str, value))


def _inside(folder: Path, name: str) -> Path:
    """A picture of the folder. One outside is refused: a judge would send it away with the question."""
    if leads_outside(name):
        raise ValueError(f"a picture outside the folder: {name}")
    path = picture_file(folder, name)
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        raise ValueError(f"no picture {name}")
    return path


def _first_of_each_type(questions: Iterable[Question], limit: int) -> Iterator[Question]:
    taken: Counter[str] = Counter()
    for question in questions:
        taken[question.type] += 1
        if not limit or taken[question.type] <= limit:
            yield question


def _unique(questions: Iterable[Question]) -> Iterator[Question]:
    """Give a repeated id a number: answers and verdicts are found again by id."""
    taken: set[str] = set()
    for question in questions:
        name = next(one for one in _numbered(question.id) if one not in taken)
        taken.add(name)
        yield question if name == question.id else replace(question, id=name)


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}#{repeat}" for repeat in itertools.count(2))
