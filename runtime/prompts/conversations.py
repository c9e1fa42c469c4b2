"""Samples in LLaVA's JSON format, read into conversations: the one reader, for training, calibration and benchmarks.

A file is a JSON list of ``{"id", "image", "conversations": [{"from": "human"|"gpt", "value"}]}``, or one such object
a line. ``image`` is missing for text alone and a list for several pictures. Where they belong is what ``<image>`` in
the human turns says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..errors import DataError
from .template import Role, TemplateMessage

PLACEHOLDER = "<image>"
QUESTIONS_FILE = "questions.json"
ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "system": "system"}
OTHER_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant"}


class SampleError(DataError):
    """A sample that can't be used; ``sample`` names its file, its place there and its id."""

    def __init__(self, sample: str, *, expected: str, got: str) -> None:
        self.sample = sample
        super().__init__(expected=f"{expected} in {sample}", got=got, fix="correct or drop the sample")


@dataclass(frozen=True)
class Conversation:
    """One sample: its id, the names of its pictures in order, its turns, and ``where`` it stands, for errors."""

    id: str
    images: tuple[str, ...]
    messages: tuple[TemplateMessage, ...]
    where: str


@dataclass(frozen=True)
class SampleFile:
    """A file's records as they are; each is checked when it is read."""

    path: Path
    records: list[Any]

    def __len__(self) -> int:
        return len(self.records)

    def conversation(self, index: int, *, strict: bool = False) -> Conversation:
        """Check a record and read it. Raises :class:`SampleError`.

        As in the original code, a turn's pictures stand before its text wherever ``<image>`` stood in it, which is
        also where the runtime puts them; white space around a turn's text is dropped. A record without an id has
        its index for one. ``strict`` is for training: human and gpt take turns, and each picture has its
        ``<image>``. Otherwise the last turn is an answer, roles may be "user" and "assistant" too, and pictures of
        a record without any ``<image>`` belong to its first question.
        """
        return _Record(self.records[index], index, self.path, strict).read()


def find_samples(place: Path) -> Path:
    """The file of samples that ``place`` means: itself, or the ``questions.json`` or only file of a folder.

    Raises :class:`DataError` where that is none, or not clear.
    """
    if place.is_file():
        return place
    if (place / QUESTIONS_FILE).is_file():
        return place / QUESTIONS_FILE
    listed = place.glob("[!.]*") if place.is_dir() else ()  # "._data.json" is what macOS leaves beside data.json
    found = sorted(path for path in listed if path.suffix in (".json", ".jsonl"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found)
        raise DataError(
            expected=f"{QUESTIONS_FILE}, or one JSON or JSONL file, in {place}",
            got=names[:120] or ("none" if place.is_dir() else "nothing there"),
            fix=f"give a file, or name the samples {QUESTIONS_FILE}",
        )
    return found[0]


def read_samples(path: Path) -> SampleFile:
    """The records of a JSON or JSONL file. Raises :class:`DataError` where it holds no list of them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            expected=f"samples at {path}", got=error.strerror or str(error), fix="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(expected=f"UTF-8 text in {path}", got=str(error), fix="get the file again") from error
    records = _records(text, path)
    if not isinstance(records, list) or not records:
        raise DataError(
            expected=f"a JSON list of samples, or one a line, in {path}",
            got="an empty list" if records == [] else type(records).__name__,
            fix="use LLaVA's JSON format",
        )
    return SampleFile(path, records)


def _records(text: str, path: Path) -> Any:
    """The file's one JSON value, or where it is an object of several lines' first, those of all lines."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not text.lstrip().startswith("{"):
            raise _no_json(str(path), error) from error
    else:
        return [whole] if isinstance(whole, dict) and "conversations" in whole else whole
    records = []
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand in a string
        try:
            records += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError) as error:
            raise _no_json(f"line {number} of {path}", error) from error
    return records


def _no_json(where: str, error: Exception) -> DataError:
    return DataError(expected=f"JSON in {where}", got=str(error), fix="get the file again")


@dataclass(frozen=True)
class _Record:
    """A record that is being read."""

    raw: Any
    index: int
    path: Path
    strict: bool

    def read(self) -> Conversation:
        if not isinstance(self.raw, dict):
            self._refuse("an object", self.raw)
        images = self._images()
        turns = self.raw.get("conversations")
        if not isinstance(turns, list) or not turns:
            self._refuse("a list of conversations", turns)
        messages = [self._message(turn) for turn in turns]
        self._check_order([message.role for message in messages])
        marks = [message.images for message in messages]
        if images and not sum(marks) and not self.strict:
            first = next(at for at, message in enumerate(messages) if message.role == "user")
            messages[first] = TemplateMessage(messages[first].role, messages[first].text, len(images))
        elif sum(marks) != len(images):
            self._refuse(f"{len(images)} {PLACEHOLDER}, one a picture", sum(marks))
        identifier = self.raw.get("id")
        return Conversation(
            str(self.index if identifier is None else identifier), images, tuple(messages), self._where()
        )

    def _images(self) -> tuple[str, ...]:
        value = self.raw.get("image")
        names = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            self._refuse("picture names", value)
        return tuple(names)

    def _message(self, turn: Any) -> TemplateMessage:
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            self._refuse("turns with 'from' and 'value'", turn)
        roles = ROLES if self.strict else ROLES | OTHER_ROLES
        if not isinstance(turn.get("from"), str) or turn["from"] not in roles:
            self._refuse(f"turns from {', '.join(roles)}", turn.get("from"))
        role, text = roles[turn["from"]], turn["value"]
        if self.strict and role != "user" and PLACEHOLDER in text:
            self._refuse(f"{PLACEHOLDER} in human turns only", text)
        if self.strict and role == "assistant" and not text.strip():
            self._refuse("an answer in every gpt turn", text)
        if role != "user":
            return TemplateMessage(role, text.strip())
        return TemplateMessage(role, text.replace(PLACEHOLDER, "").strip(), text.count(PLACEHOLDER))

    def _check_order(self, roles: list[Role]) -> None:
        talk = roles[1:] if roles[0] == "system" else roles
        if self.strict and (not talk or talk != ["user", "assistant"] * (len(talk) // 2)):
            self._refuse("human and gpt turns in turn, gpt last", roles)
        if roles[-1] != "assistant" or "user" not in roles:
            self._refuse("turns that end with an answer", roles)

    def _where(self) -> str:
        named = f" ({shown(self.raw['id'], 60)})" if isinstance(self.raw, dict) and "id" in self.raw else ""
        return f"record {self.index}{named} of {self.path}"

    def _refuse(self, expected: str, got: Any) -> NoReturn:
        raise SampleError(self._where(), expected=expected, got=shown(got, 120))


def shown(value: Any, limit: int) -> str:
    """Input as an error repeats it: on one line, whatever is in it, and at most ``limit`` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
