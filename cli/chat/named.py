"""``chat --name``: a conversation kept under a name, and gone on with later.

Its pictures are not copied: each is known by the SHA-256 of its file, so one that was moved is found by its content.
One without a file, typed as a data: address, is kept as that.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from ...runtime.bundle.strict_reading import StrictReader
from ...runtime.engine.asking import Turn
from ...runtime.errors import BusyError, DataError, ImageError, OptionError, StorageError, first_line
from ...runtime.pictures.encoded import EncodedImage
from ...runtime.prompts.template import TemplateMessage
from ...runtime.system.filesystems import make_private, open_private, set_mode, try_lock
from ...runtime.system.storage import file_sha256, write_text

SCHEMA = 1
CONVERSATIONS = "conversations"
"""The folder of all of them, in the cache's."""
LARGEST = 2**26
"""Bytes of a conversation's file; a larger one is not ours."""
LOOKED_AT = 5000
"""Files near its old place and here among which a moved picture is looked for, in these folders and one level below."""
_NAME = re.compile(r"\w[\w .-]{0,99}(?<![ .])")


@dataclass(frozen=True)
class KeptPicture:
    """A picture of a turn: ``path`` is where its file was, of so many ``bytes``, or its data: address.

    ``low`` is the overview alone, ``picture_tokens`` the positions that were kept of it, None all.
    """

    name: str
    path: str
    bytes: int
    sha256: str
    low: bool
    picture_tokens: int | None = None


@dataclass(frozen=True)
class KeptTurn:
    """A turn as it is written: of a question also its pictures, and where they stand in its text."""

    role: str
    text: str
    places: tuple[int, ...]
    pictures: tuple[KeptPicture, ...]

    @property
    def message(self) -> TemplateMessage:
        """The turn as the chat template takes it. Raises what that does."""
        return TemplateMessage(self.role, self.text, len(self.pictures), self.places)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _File:
    path: str = ""
    bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class _Kept:
    schema: int
    model: str
    turns: tuple[KeptTurn, ...]


def conversations_in(root: Path) -> list[Path]:
    """The files of the conversations that are kept below ``root``, sorted."""
    return sorted((root / CONVERSATIONS).glob("*.json"))


class NamedConversation:
    """The file of one conversation, which one chat at a time has open."""

    def __init__(self, root: Path, name: str) -> None:
        """Open the conversation ``name`` below ``root``. Raises OptionError for a name that is none, BusyError."""
        if not _NAME.fullmatch(name):
            raise OptionError(
                expected="--name as 1 to 100 letters, digits, spaces, dots, dashes and underscores "
                "that begin with a letter, digit or underscore and end with neither a space nor a dot",
                got=repr(name[:200]),
                fix="choose a name like trip",
            )
        self.name = name
        self._path = root / CONVERSATIONS / f"{name}.json"
        make_private(self._path.parent)
        self._files: dict[str, _File] = {}
        self._written: str | None = None
        lock = self._path.with_suffix(".lock")
        self._lock: IO[bytes] = open_private(lock)
        locked = try_lock(self._lock)
        while locked and not _is_open(self._lock, lock):  # the chat that had it removed it meanwhile
            self._lock.close()
            self._lock = open_private(lock)
            locked = try_lock(self._lock)
        if not locked:
            self._lock.close()
            raise BusyError(
                expected=f"the conversation {name} for this chat alone", got="another chat in it", fix="leave that one"
            )

    def close(self) -> None:
        """Let another chat have it. A conversation of which nothing was kept leaves nothing."""
        if not self._path.exists():
            with suppress(OSError):  # Windows removes no file that is open
                self._path.with_suffix(".lock").unlink()
        self._lock.close()

    def turns(self) -> tuple[KeptTurn, ...]:
        """What was said in it, nothing of a new one. Raises DataError where its file is damaged."""
        fix = f"remove {self._path}, or choose another --name"
        try:
            if not self._path.exists():
                return ()
            if self._path.stat().st_size > LARGEST:
                raise ValueError("a file too large")
            raw = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(expected=f"a conversation in {self._path}", got=first_line(error), fix=fix) from error
        kept = StrictReader(DataError, fix, defaults=False).read(_Kept, raw, str(self._path))
        if kept.schema != SCHEMA:
            raise DataError(expected=f"a conversation of schema {SCHEMA}", got=str(kept.schema), fix=fix)
        return kept.turns

    def note_file(self, image: EncodedImage, path: str) -> None:
        """Note which file a picture was read from, or which data: address."""
        if _is_data(path):
            self._files[_content(image)] = _File(path)
            return
        with suppress(OSError):
            whole = Path(os.path.abspath(path))
            self._files[_content(image)] = _File(str(whole), whole.stat().st_size, file_sha256(whole))

    def write(self, turns: Sequence[Turn], *, model: str) -> None:
        """Write what was said, whole, where it is not written yet. Raises StorageError."""
        kept = _Kept(SCHEMA, model, tuple(self._kept(turn) for turn in turns))
        text = json.dumps(dataclasses.asdict(kept, dict_factory=_given), ensure_ascii=True, indent=1) + "\n"
        if len(text) > LARGEST:
            raise StorageError(
                expected=f"at most {LARGEST} bytes of a conversation to keep",
                got=f"{len(text)}",
                fix="/clear begins a new one; pictures take less as files than as data: addresses",
            )
        if text != self._written and (turns or self._path.exists()):
            write_text(self._path, text)
            set_mode(self._path, 0o600)
            self._written = text

    def _kept(self, turn: Turn) -> KeptTurn:
        message = turn.message
        return KeptTurn(message.role, message.text, message.places, tuple(map(self._kept_picture, turn.images)))

    def _kept_picture(self, image: EncodedImage) -> KeptPicture:
        file, layout = self._files.get(_content(image), _File()), image.layout
        fewer = max(2, sum(layout.kept)) if any(layout.kept) else None  # 1 is of a lowered one, and not to be asked for
        return KeptPicture(image.name, file.path, file.bytes, file.sha256, layout.grid == (0, 0), fewer)


def find_file(picture: KeptPicture, others: Iterable[str], ask: Callable[[KeptPicture, str], str | None]) -> str:
    """The file with a picture's content: where it was, else moved or renamed nearby, among ``others``, or where
    ``ask`` says, which hears its last answer if that was wrong. Raises ImageError where it is nowhere."""
    if _is_data(picture.path):
        return picture.path
    for path in _places(picture, others):
        if _is(path, picture):
            return str(path)
    wrong = ""
    while (said := ask(picture, wrong)) is not None:
        if _is(Path(said), picture):
            return said
        wrong = said
    raise ImageError(
        expected=f"the picture {picture.name} of this conversation, with the content that it had",
        got=f"nothing like it at {picture.path[:200] or 'a file that is known'} or near there",
        fix="name its file on the command line: chat --name NAME FILE",
    )


def _is_open(file: IO[bytes], path: Path) -> bool:
    """Whether ``file`` is what lies at ``path``."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _content(image: EncodedImage) -> str:
    """What its key has of the picture, however much of it is kept: that changes while it waits for a question."""
    return image.key.partition(":")[0]


def _given(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without what is not there, which versions that know no such key can read."""
    return {name: value for name, value in pairs if value is not None}


def _is_data(path: str) -> bool:
    return path[:5].lower() == "data:"


def _places(picture: KeptPicture, others: Iterable[str]) -> Iterator[Path]:
    yield Path(picture.path)
    yield from map(Path, others)
    near = list(dict.fromkeys((Path(picture.path).parent, Path.cwd())))
    listed = [path for folder in near for path in _inside(folder)]
    below = (path for folder in listed if folder.is_dir() for path in _inside(folder))
    yield from islice(chain(listed, below), LOOKED_AT)


def _inside(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(folder.iterdir())
    return []


def _is(path: Path, picture: KeptPicture) -> bool:
    """Whether a file has the content; only one of its size is read."""
    with suppress(OSError, ValueError):
        return path.is_file() and path.stat().st_size == picture.bytes and file_sha256(path) == picture.sha256
    return False
