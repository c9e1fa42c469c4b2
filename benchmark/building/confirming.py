"""Reference answers that nobody has confirmed yet, and what a person decides about each.

Every decision is on the disk before the next question is shown: ``questions.json`` is replaced whole, so Ctrl-C or a
kill loses at most the answer that is being typed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...runtime.errors import DataError, OptionError, StorageError
from ...runtime.prompts.conversations import QUESTIONS_FILE, find_samples, read_samples
from ...runtime.system.filesystems import try_lock
from ...runtime.system.storage import storage_error, write_text
from ..data.datasets import check_question, read_folder_record
from ..data.questions import Question
from .agreement import is_right
from .card import CARD, with_answers

LONGEST = 8000
"""Characters that an answer may have."""
_LOCK = ".confirming"


@dataclass(frozen=True)
class Answered:
    """A question with its reference answer, for a person to look at. ``number`` is its place in the file, from 0."""

    number: int
    id: str
    picture: Path | None
    question: str
    answer: str
    confirmed: bool
    drafted_by: str
    blind: str
    metric: str


class Answers:
    """The answers of a folder in our format, while a person goes through them. Open it with :func:`opened_answers`."""

    def __init__(self, folder: Path) -> None:
        """Read the folder. Raises :class:`DataError`."""
        self.folder = folder
        self._file = find_samples(folder)
        if self._file.parent != folder:
            raise DataError(expected=f"a benchmark's folder at {folder}", got="a file", fix="give the folder it is in")
        self._samples = read_samples(self._file)
        self._records: list[Any] = self._samples.records
        self._questions: dict[int, Question] = {}
        for index in range(len(self._records)):
            found = read_folder_record(self.folder, self._samples, index, decode=False)
            if isinstance(found, Question):
                self._questions[index] = found
        if not self._questions:
            raise DataError(
                expected=f"questions that can be asked in {self._file}", got="none", fix="build the folder again"
            )

    def __len__(self) -> int:
        """How many questions can be asked."""
        return len(self._questions)

    @property
    def all(self) -> tuple[Answered, ...]:
        """Every question that can be asked, in the order of the file."""
        return tuple(self[number] for number in self._questions)

    @property
    def unconfirmed(self) -> tuple[Answered, ...]:
        """Those whose answer nobody has confirmed."""
        return tuple(one for one in self.all if not one.confirmed)

    def __getitem__(self, number: int) -> Answered:
        """The question at ``number`` of the file. Raises :class:`OptionError` where there is none."""
        if number not in self._questions:
            raise OptionError(
                expected=f"the number of a question of {self._file.name}",
                got=str(number),
                fix="choose one that is there",
            )
        question, record = self._questions[number], self._records[number]
        return Answered(
            number,
            question.id,
            Path(question.images[0]) if question.images and isinstance(question.images[0], Path) else None,
            question.prompt,
            question.answers[0],
            question.confirmed,
            _text(record, "drafted_by"),
            _text(record, "blind"),
            question.metric,
        )

    def confirm(self, number: int, answer: str) -> Answered:
        """Take ``answer`` as right, and keep that. Raises OptionError for one that can't be, StorageError."""
        before = self[number]
        answer = answer.strip()
        _check(answer)
        try:
            check_question(_with_answer(self._questions[number], answer))
        except ValueError as error:
            raise OptionError(
                expected=f"an answer to question {before.id}", got=str(error), fix="correct it"
            ) from error
        record = json.loads(json.dumps(self._records[number]))
        _put_answer(record, answer)
        record["confirmed"] = True
        if before.blind and not is_right(_with_answer(self._questions[number], answer), before.blind):
            record["blind"] = ""  # it was the draft that could be had without the picture
        records = [*self._records[:number], record, *self._records[number + 1 :]]
        write_text(self._file, json.dumps(records, ensure_ascii=False, indent=1) + "\n")
        self._records[number] = record
        self._questions[number] = _with_answer(self._questions[number], answer)
        return self[number]

    def finish(self) -> None:
        """Bring what the card says of the answers up to date. Raises StorageError."""
        path = self.folder / CARD
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return
        confirmed = len(self) - len(self.unconfirmed)
        if (changed := with_answers(text, confirmed, len(self))) != text:
            write_text(path, changed)


@contextmanager
def opened_answers(folder: Path) -> Iterator[Answers]:
    """The answers of ``folder``, for this process alone; at the end the card is up to date.

    Raises DataError, and OptionError where another process has them.
    """
    if not folder.is_dir():
        raise DataError(
            expected=f"a benchmark's folder at {folder}",
            got="a file" if folder.exists() else "nothing",
            fix="make one: llava-edge benchmark build PHOTOS -o FOLDER -k 120",
        )
    lock = folder / _LOCK
    try:
        with lock.open("ab") as file:
            if not try_lock(file):
                raise OptionError(
                    expected=f"nobody else confirming answers of {folder}",
                    got="another process",
                    fix="end that one first",
                )
            answers = Answers(folder)
            try:
                yield answers
            finally:
                answers.finish()
                lock.unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise storage_error(error, folder / QUESTIONS_FILE) from error


def _check(answer: str) -> None:
    if not answer:
        raise OptionError(expected="an answer", got="none", fix="write one, or leave the question for later")
    if len(answer) > LONGEST or any("\ud800" <= one <= "\udfff" for one in answer):
        raise OptionError(
            expected=f"an answer of at most {LONGEST} characters", got=f"{len(answer)}", fix="write a shorter one"
        )


def _with_answer(question: Question, answer: str) -> Question:
    return replace(question, answers=(answer, *question.answers[1:]), confirmed=True)


def _put_answer(record: dict[str, Any], answer: str) -> None:
    """Write ``answer`` where the record's first answer stands, in whichever words it is spelt."""
    turns = record.get("conversations", record.get("messages"))
    assert isinstance(turns, list)
    asked = False
    for turn in turns:
        role = str(turn.get("role", turn.get("from")))
        if asked and role in ("gpt", "assistant"):
            turn["content" if "content" in turn else "value"] = answer
            return
        asked = asked or role in ("human", "user")


def _text(record: Any, key: str) -> str:
    value = record.get(key, "") if isinstance(record, dict) else ""
    return value if isinstance(value, str) else ""
