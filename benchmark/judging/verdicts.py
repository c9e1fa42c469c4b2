"""Verdicts of a judge, kept in a JSONL file as they come, so that a run cut off goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.errors import DataError, StorageError
from ...runtime.system.plain_files import read_plain


@dataclass(frozen=True)
class Verdict:
    """What the judge said of one answer.

    ``reference`` and ``candidate`` are the two scores it gave, None where none could be read.
    ``key`` identifies question, pictures, reference, answer and judge. ``cost`` is in the currency
    of the prices given.
    """

    key: str
    question: str
    reference: float | None
    candidate: float | None
    review: str
    prompt_tokens: int
    completion_tokens: int
    cost: float

    @property
    def score(self) -> float | None:
        """The answer's share of the reference's marks, 0 to 1: the reference is pinned to full marks.

        A judge that gave the reference less has used another scale, so the answer's marks are
        taken relative to it; more than full marks there are none.
        """
        if self.reference is None or self.candidate is None:
            return None
        return min(self.candidate / self.reference, 1.0)


@dataclass(frozen=True)
class Spent:
    """What judging has cost so far: requests that were answered, tokens, and money."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float


class VerdictFile:
    """A JSONL file with one verdict a line, each on the disk before the next is asked for."""

    def __init__(self, path: Path) -> None:
        """Read what an earlier run left. Raises :class:`DataError` for a file of something else."""
        self.path = path
        self._verdicts = _read(path)
        self._by_key = {one.key: one for one in self._verdicts if one.score is not None}

    def find(self, key: str) -> Verdict | None:
        """An earlier verdict that has scores."""
        return self._by_key.get(key)

    def add(self, verdict: Verdict) -> None:
        """Append a verdict. Raises :class:`StorageError`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(verdict), ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(
                expected=f"to write {self.path}",
                got=error.strerror or str(error),
                fix="free space or choose another file",
            ) from error
        self._verdicts.append(verdict)
        if verdict.score is not None:
            self._by_key[verdict.key] = verdict

    @property
    def spent(self) -> Spent:
        """What all verdicts of the file have cost, earlier runs and unreadable reviews included."""
        every = self._verdicts
        return Spent(
            len(every),
            sum(one.prompt_tokens for one in every),
            sum(one.completion_tokens for one in every),
            sum(one.cost for one in every),
        )


def _read(path: Path) -> list[Verdict]:
    try:
        content = read_plain(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(
            expected=f"a file of verdicts at {path}", got=error.strerror or str(error), fix="choose another file"
        ) from error
    *lines, torn = content.split(b"\n")
    verdicts = [_verdict(path, number, line) for number, line in enumerate(lines, start=1)]
    if torn:
        _cut_off(path, content, torn)
    return verdicts


def _verdict(path: Path, number: int, line: bytes) -> Verdict:
    try:
        values: dict[str, Any] = json.loads(line)
        return Verdict(**values)
    except (ValueError, TypeError) as error:
        raise DataError(
            expected=f"a verdict in line {number} of {path}",
            got=line[:40].decode("utf-8", "replace"),
            fix="give another file: this one holds something else",
        ) from error


def _cut_off(path: Path, content: bytes, torn: bytes) -> None:
    """Drop the beginning of a line that an interrupted run left, if that is what it is."""
    if not b'{"key": "'.startswith(torn[:9]):
        _verdict(path, content.count(b"\n") + 1, torn)
    os.truncate(path, len(content) - len(torn))
