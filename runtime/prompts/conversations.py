"""Samples in LLaVA's JSON format, read into conversations: the one reader, for training, calibration and benchmarks.

A file is a JSON list of ``{"id", "image", "conversations": [{"from": "human"|"gpt", "value"}]}``, or one such object
a line. ``image`` is missing for text alone and a list for several pictures. Where they belong is what ``<image>`` in
the human turns says. What other tools write for the same is read too: ``messages`` of ``role`` and ``content``, which
may be a list of parts, and ``images``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..errors import DataError
from ..system.plain_files import open_plain, read_plain_text
from .template import Role, TemplateMessage

PLACEHOLDER = "<image>"
QUESTIONS_FILE = "questions.json"
ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "system": "system"}
OTHER_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant"}
TURNS, IMAGES = ("conversations", "messages"), ("image", "images")
"""Keys of a record: LLaVA's first, then other tools'."""
ONE_RECORD = (*TURNS, "question")
"""Keys by which an object that is a whole file is told to be its only record."""
PICTURES = ("image", "image_url", "path", "url")
"""Where a part of a turn names its picture; the first two are also its kind."""
_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[\]}])')
"""A JSON string, or a comma with nothing behind it, which people's editors and scripts leave."""


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
        also where the runtime puts them; white space around a turn's text is dropped, and an answer that comes before
        the first question. A record without an id has its index for one. Parts of a turn's ``content`` are joined,
        and a picture among them may be named there. ``strict`` is for training: human and gpt take turns, and each
        picture has its ``<image>``. Otherwise the last turn is an answer, ``from`` may be "user" and "assistant"
        too, and pictures of a record without any ``<image>`` belong to its first question.
        """
        return _Record(self.records[index], index, self.path, strict).read()


_UNPACK, _FETCH = "unpack it", "fetch the file itself"
KINDS = {
    b"PAR1": ("a Parquet file", "write its rows as JSON, one a line"),
    b"\x1f\x8b": ("a gzip file", _UNPACK),
    b"PK\x03\x04": ("a zip file", _UNPACK),
    b"(\xb5/\xfd": ("a Zstandard file", _UNPACK),
    b"\xff\xfe": ("UTF-16 text", "save it as UTF-8"),
    b"\xfe\xff": ("UTF-16 text", "save it as UTF-8"),
    b"version https://git-lfs": ("a Git LFS pointer", f"{_FETCH} (git lfs pull)"),
    b"<!doctype": ("a web page", _FETCH),
    b"<html": ("a web page", _FETCH),
    b"datasets:": ("a list of data sets in YAML", "name each of its files as a source in the recipe"),
}
"""What people give for a file of samples, by its first bytes."""


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
    if place.suffix in (".json", ".jsonl") and not place.exists():
        raise DataError(expected=f"samples at {place}", got="nothing there", fix="check the path")
    if len(found) != 1:
        names = ", ".join(path.name for path in found)
        raise DataError(
            expected=f"{QUESTIONS_FILE}, or one JSON or JSONL file, in {place}",
            got=names[:120] or ("none" if place.is_dir() else "nothing there"),
            fix=f"give a file, or name the samples {QUESTIONS_FILE}",
        )
    return found[0]


def check_samples(path: Path) -> None:
    """Open the file and read nothing. Raises :class:`DataError` where it can't be read."""
    try:
        with open_plain(path):
            return
    except OSError as error:
        raise _not_read(path, error) from error


def _not_read(path: Path, error: OSError) -> DataError:
    return DataError(expected=f"samples at {path}", got=error.strerror or str(error), fix="check the path")


def read_samples(path: Path) -> SampleFile:
    """The records of a JSON or JSONL file. Raises :class:`DataError` where it holds no list of them."""
    try:
        text = read_plain_text(path, encoding="utf-8-sig")
    except OSError as error:
        raise _not_read(path, error) from error
    except UnicodeDecodeError as error:
        kind, fix = _kind(error.object) or (str(error), "get the file again")
        raise DataError(expected=f"UTF-8 text in {path}", got=kind, fix=fix) from error
    records = _records(text, path)
    if not isinstance(records, list) or not records:
        raise DataError(
            expected=f"a JSON list of samples, or one a line, in {path}",
            got="an empty list" if records == [] else type(records).__name__,
            fix="use LLaVA's JSON format",
        )
    return SampleFile(path, records)


def _kind(content: bytes) -> tuple[str, str] | None:
    """What a file that holds no samples is, and what to do with it."""
    return next((said for head, said in KINDS.items() if content.startswith(head)), None)


def _records(text: str, path: Path) -> Any:
    """The file's one JSON value, or where it is an object of several lines' first, those of all lines."""
    try:
        whole = _parse(text)
    except (ValueError, RecursionError) as error:
        if not text.lstrip().startswith("{"):
            kind, fix = _kind(text[:100].lstrip().lower().encode()) or (str(error), "get the file again")
            raise DataError(expected=f"JSON in {path}", got=kind, fix=fix) from error
    else:
        return [whole] if isinstance(whole, dict) and not whole.keys().isdisjoint(ONE_RECORD) else whole
    records = []
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand in a string
        try:
            records += [_parse(line)] if line.strip() else []
        except (ValueError, RecursionError) as error:
            raise _no_json(f"line {number} of {path}", error) from error
    return records


def _parse(text: str) -> Any:
    """JSON, or what would be JSON without commas that nothing follows."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        without = _COMMA.sub(lambda found: found[1] or "", text)
        if without == text:
            raise
        return json.loads(without)


def _no_json(where: str, error: Exception) -> DataError:
    return DataError(expected=f"JSON in {where}", got=str(error), fix="get the file again")


@dataclass(frozen=True)
class _Turn:
    """One turn: its text, how many pictures it places by mark and by part, and the names that its parts give."""

    role: Role
    text: str
    marks: int = 0
    parts: int = 0
    names: tuple[str, ...] = ()


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
        if "video" in self.raw:
            self._refuse("pictures and text", {"video": self.raw["video"]})
        turns = self._only(TURNS)
        if not isinstance(turns, list) or not turns:
            self._refuse("a list of conversations", turns)
        read = _from_the_first_question([self._turn(turn) for turn in turns])
        self._check_order([turn.role for turn in read])
        images = self._images(read)
        messages = [TemplateMessage(turn.role, turn.text, turn.marks + turn.parts) for turn in read]
        marks = sum(message.images for message in messages)
        if images and not marks and not self.strict:
            first = next(at for at, message in enumerate(messages) if message.role == "user")
            messages[first] = TemplateMessage(messages[first].role, messages[first].text, len(images))
        elif marks != len(images):
            self._refuse(f"{len(images)} {PLACEHOLDER}, one a picture", marks)
        identifier = self.raw.get("id")
        return Conversation(
            str(self.index if identifier is None else identifier), images, tuple(messages), self._where()
        )

    def _only(self, keys: tuple[str, str]) -> Any:
        """The value of the one key of these that the record has."""
        values = [self.raw[key] for key in keys if self.raw.get(key) is not None]
        if len(values) == 2 and values[0] != values[1]:
            self._refuse(f"{keys[0]!r} or {keys[1]!r}", "both")
        return values[0] if values else None

    def _images(self, turns: list[_Turn]) -> tuple[str, ...]:
        """The record's pictures, or where it has none, those that parts of its turns name."""
        value = self._only(IMAGES)
        names = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            self._refuse("picture names", value)
        parts, named = sum(turn.parts for turn in turns), [name for turn in turns for name in turn.names]
        if parts and any(turn.marks for turn in turns):
            self._refuse(f"pictures as parts or as {PLACEHOLDER}", "both")
        if named and (len(named) != parts or names not in ([], named)):
            self._refuse("all pictures named in the parts, or none", [*names, *named])
        return tuple(named or names)

    def _turn(self, turn: Any) -> _Turn:
        spoken = isinstance(turn, dict) and turn.keys() >= {"role", "content"}
        speaker, value = ("role", "content") if spoken else ("from", "value")
        if not isinstance(turn, dict) or not isinstance(turn.get(value), str | list if spoken else str):
            self._refuse("turns with 'from' and 'value', or 'role' and 'content'", turn)
        roles = ROLES if self.strict and not spoken else ROLES | OTHER_ROLES
        if not isinstance(turn.get(speaker), str) or turn[speaker] not in roles:
            self._refuse(f"turns from {', '.join(roles)}", turn.get(speaker))
        role, content = roles[turn[speaker]], turn[value]
        read = self._parts(role, content) if isinstance(content, list) else self._marked(role, content)
        if any("\ud800" <= character <= "\udfff" for character in read.text):
            self._refuse("Unicode text", read.text)
        if self.strict and role == "assistant" and not read.text:
            self._refuse("an answer in every gpt turn", content)
        return read

    def _marked(self, role: Role, text: str) -> _Turn:
        """A turn whose text says where its pictures are."""
        if self.strict and role != "user" and PLACEHOLDER in text:
            self._refuse(f"{PLACEHOLDER} in human turns only", text)
        if role != "user":
            return _Turn(role, text.strip())
        return _Turn(role, text.replace(PLACEHOLDER, "").strip(), marks=text.count(PLACEHOLDER))

    def _parts(self, role: Role, content: list[Any]) -> _Turn:
        """A turn in parts, texts and pictures; a picture without a name is the record's next one."""
        texts, pictures, names = [], 0, []
        for part in content:
            text, name = self._part(part)
            if text is not None:
                texts.append(text)
                continue
            pictures += 1
            names += [name] if name else []
        if pictures and role != "user":
            self._refuse("pictures in human turns only", content)
        read = self._marked(role, "".join(texts))
        return _Turn(role, read.text, read.marks, pictures, tuple(names))

    def _part(self, part: Any) -> tuple[str | None, str]:
        """(text, "") or (None, the picture's name if it has one)."""
        if isinstance(part, str):
            return part, ""
        described: dict[str, Any] = part if isinstance(part, dict) else {}
        kind = described.get("type") or next((key for key in ("text", *PICTURES) if key in described), "")
        kind = str(kind).removeprefix("input_")
        if kind == "text" and isinstance(described.get("text"), str):
            return described["text"], ""
        value = next((described[key] for key in PICTURES if key in described), "")
        value = value.get("url") if isinstance(value, dict) else value
        if kind not in PICTURES[:2] or not isinstance(value, str):
            self._refuse("parts of type text, image or image_url", part)
        return None, value

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


def _from_the_first_question(turns: list[_Turn]) -> list[_Turn]:
    """The turns without an answer that nothing was asked for, as the original code leaves it out."""
    start = 1 if turns[0].role == "system" else 0
    unasked = len(turns) > start + 1 and turns[start].role == "assistant"
    return turns[:start] + turns[start + unasked :]


def shown(value: Any, limit: int) -> str:
    """Input as an error repeats it: on one line, whatever is in it, and at most ``limit`` characters."""
    try:
        text = repr(value)
    except RecursionError:  # JSON nests a little deeper than repr can follow
        text = f"a {type(value).__name__} of many levels"
    return text if len(text) <= limit else text[: limit - 1] + "…"
