"""Reference answers that nobody has confirmed yet, and what a person decides about each.

Every decision is on the disk before the next question is shown: ``questions.json`` is replaced whole, so Ctrl-C or a
kill loses at most the answer that is being typed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import string
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...runtime.errors import DataError, OptionError, shown
from ...runtime.prompts.conversations import QUESTIONS_FILE, find_samples, read_samples
from ...runtime.system.filesystems import try_lock
from ...runtime.system.storage import file_sha256, storage_error, write_text, write_whole
from ..data.datasets import check_question, read_folder_record
from ..data.questions import Question
from .agreement import is_right
from .asking import LONGEST
from .card import CARD, with_answers

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
    pictures: tuple[Path, ...] = ()
    accepted: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def scoring(self) -> tuple[str, ...]:
        """What an answer is held to, a line each: how it is compared, the choices, what else is accepted."""
        choices = (f"{letter}: {text}" for letter, text in zip(string.ascii_uppercase, self.choices, strict=False))
        accepted = f"also accepted, until the answer is changed: {', '.join(self.accepted)}"
        return (f"compared as {self.metric}", *choices, *([accepted] if self.accepted else []))


class Answers:
    """The answers of a folder in our format, while a person goes through them. Open it with :func:`opened_answers`."""

    def __init__(self, folder: Path) -> None:
        """Read the folder. Raises :class:`DataError`."""
        self.folder = folder
        self._file = find_samples(folder)
        if self._file.parent != folder:
            raise DataError(expected=f"a benchmark's folder at {folder}", got="a file", fix="give the folder it is in")
        self._digest = self._now()
        self._samples = read_samples(self._file)
        self._records: list[Any] = self._samples.records
        self._questions: dict[int, Question] = {}
        left_out = []
        for index in range(len(self._records)):
            found = read_folder_record(self.folder, self._samples, index, decode=False)
            if isinstance(found, Question):
                self._questions[index] = found
            else:
                left_out.append(str(found))
        self.left_out = tuple(left_out)
        """A line about each record that can't be asked."""
        if not self._questions:
            raise DataError(
                expected=f"questions that can be asked in {self._file}",
                got=f"none: {left_out[0]}" if left_out else "none",
                fix="build the folder again",
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
        pictures = tuple(one for one in question.images if isinstance(one, Path))
        return Answered(
            number,
            question.id,
            pictures[0] if pictures else None,
            question.prompt,
            question.answers[0],
            question.confirmed,
            _text(record, "drafted_by"),
            _text(record, "blind"),
            question.metric,
            pictures,
            question.answers[1:],
            question.choices,
        )

    def confirm(self, number: int, answer: str) -> Answered:
        """Take ``answer`` as right, and keep that. Another answer than before is a person's, and the only right one.

        Raises OptionError for one that can't be, DataError where the file is not what was read, StorageError.
        """
        before = self[number]
        answer = answer.strip()
        _check(answer)
        decided = _with_answer(self._questions[number], answer)
        try:
            check_question(decided)
        except ValueError as error:
            raise OptionError(
                expected=f"an answer to question {before.id}", got=str(error), fix="correct it"
            ) from error
        record = json.loads(json.dumps(self._records[number]))
        _put_answer(record, answer)
        record["confirmed"] = True
        if len(decided.answers) == 1 and before.accepted:
            record["accepted"] = []  # they stood beside the answer that was not right
        if answer != before.answer and before.drafted_by:
            record["drafted_by"] = ""
        if before.blind and not is_right(decided, before.blind):
            record["blind"] = ""  # it was the draft that could be had without the picture
        records = [*self._records[:number], record, *self._records[number + 1 :]]
        text = json.dumps(records, ensure_ascii=False, indent=1) + "\n"
        if self._now() != self._digest:
            raise DataError(
                expected=f"{self._file} as it was read",
                got="another one, or none: something else changed it",
                fix=f"run the command again; this answer was not kept: {shown(answer)}",
            )
        write_whole(self._file, lambda file: file.write(text.encode()), make_folders=False)
        self._digest = hashlib.sha256(text.encode()).hexdigest()
        self._records[number] = record
        self._questions[number] = decided
        return self[number]

    def finish(self) -> None:
        """Bring what the card says of the answers up to date. Raises StorageError."""
        if self._now() != self._digest:
            return  # somebody else's answers, that nothing is known of
        path = self.folder / CARD
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return
        confirmed = len(self) - len(self.unconfirmed)
        if (changed := with_answers(text, confirmed, len(self._records))) != text:
            write_text(path, changed)

    def _now(self) -> str:
        """SHA-256 of the file as it is now; "" where there is none."""
        try:
            return file_sha256(self._file)
        except (OSError, ValueError):
            return ""


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
        file = lock.open("ab")
    except OSError as error:
        raise storage_error(error, folder / QUESTIONS_FILE) from error
    with file:
        if not try_lock(file):
            raise DataError(
                expected=f"nobody else confirming answers of {folder}",
                got="another process",
                fix="end that one first",
            )
        answers = Answers(folder)
        try:
            yield answers
        finally:
            answers.finish()
            with contextlib.suppress(OSError):
                lock.unlink(missing_ok=True)


def _check(answer: str) -> None:
    if not answer:
        raise OptionError(expected="an answer", got="none", fix="write one, or leave the question for later")
    if any("\ud800" <= one <= "\udfff" for one in answer):
        raise OptionError(
            expected="an answer in UTF-8", got="other bytes", fix="write it again, or read in a UTF-8 file"
        )
    if len(answer) > LONGEST:
        raise OptionError(
            expected=f"an answer of at most {LONGEST} characters", got=f"{len(answer)}", fix="write a shorter one"
        )


def _with_answer(question: Question, answer: str) -> Question:
    """The question with ``answer``. What else was accepted stays where it is the same answer, perhaps in other case."""
    same = answer.casefold().split() == question.answers[0].casefold().split()
    return replace(question, answers=(answer, *(question.answers[1:] if same else ())), confirmed=True)


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
