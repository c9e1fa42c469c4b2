"""Where questions come from: the bundled held-out set, a folder in LLaVA format, or a published data set."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from ...runtime.errors import DataError
from ...runtime.prompts.conversations import Conversation, SampleError, find_samples, read_samples, shown
from .heldout import MAX_TOKENS, heldout
from .parquet import read_rows
from .published import FREE_FORM_TOKENS, PUBLISHED
from .questions import Metric, Question


def load_questions(data: str, *, limit: int = 0) -> list[Question]:
    """Load ``data``: ``demo``, a folder in LLaVA format, or ``NAME:SOURCE`` for a published data set.

    NAME is one of :data:`PUBLISHED`, SOURCE a parquet file, a folder of them, or a hub id. ``limit``
    keeps the first so many questions of each type; 0 keeps all. Ids are unique in what comes back.
    Pictures of a folder stay files; those of parquet are their encoded bytes. Raises
    :class:`DataError`, and MissingExtraError for parquet without the extra ``[benchmark]``.
    """
    return list(_unique(_first_of_each_type(_read(data), limit)))


def _read(data: str) -> Iterator[Question]:
    name, colon, source = data.partition(":")
    if data == "demo":
        return (replace(one, max_tokens=MAX_TOKENS) for one in read_folder(heldout()))
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


def _read_published(name: str, source: str) -> Iterator[Question]:
    published = PUBLISHED[name]
    for index, row in enumerate(read_rows(source, published.split, published.columns)):
        try:
            yield published.question(index, row)
        except (ValueError, KeyError, IndexError, TypeError, SyntaxError, AttributeError) as error:
            raise DataError(
                expected=f"row {index} of {source} as {name} publishes it",
                got=f"{type(error).__name__}: {error}",
                fix="check that the name before the colon fits the data set",
            ) from error


def read_folder(folder: Path) -> Iterator[Question]:
    """Questions of ``questions.json`` in ``folder``, or of its only file: LLaVA's JSON format.

    A record's first turn is the question and the second the right answer; later turns are left out.
    Beside LLaVA's ``id``, ``image`` (a path inside the folder, or a list) and
    ``conversations`` a record may have ``type``, ``metric``, ``accepted`` (further right answers),
    ``choices`` and ``max_tokens``. Raises :class:`DataError`.
    """
    samples = read_samples(find_samples(folder))
    for index, record in enumerate(samples.records):
        yield _question(folder, samples.conversation(index), record)


def _question(folder: Path, conversation: Conversation, record: dict[str, Any]) -> Question:
    asked, answered = conversation.messages[:2]
    if (asked.role, answered.role) != ("user", "assistant"):
        raise SampleError(conversation.where, expected="conversations that begin with human, gpt", got="others")
    metric: Metric = record.get("metric", "exact")
    try:
        if metric not in get_args(Metric):
            raise ValueError(f"metric {metric!r}, which is none of {', '.join(get_args(Metric))}")
        return Question(
            id=conversation.id,
            type=str(record.get("type", "all")),
            prompt=asked.text,
            images=tuple(_inside(folder, name) for name in conversation.images[: asked.images]),
            answers=(answered.text, *map(str, record.get("accepted", ()))),
            metric=metric,
            choices=tuple(map(str, record.get("choices", ()))),
            max_tokens=int(record.get("max_tokens", FREE_FORM_TOKENS if metric == "judged" else Question.max_tokens)),
        )
    except (ValueError, TypeError) as error:
        raise SampleError(
            conversation.where, expected="a question, its pictures and how it is scored", got=shown(str(error), 160)
        ) from error


def _inside(folder: Path, name: str) -> Path:
    """A picture of the folder. One outside is refused: a judge would send it away with the question."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"a picture outside the folder: {name}")
    if not (folder / name).is_file():
        raise ValueError(f"no picture {name}")
    return folder / name


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
