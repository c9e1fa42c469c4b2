"""Answers kept on disk, one file a question, so that a long run continues where it stopped.

A file's name says what it depends on: the parts of the bundle that gave the answer, and the
question as the model saw it (prompt, picture bytes, most tokens). So another data set, limit or
candidate finds what is already there, a reference too large for this machine can be computed on
another one, and right answers can be corrected without asking again. What can't be read is
computed again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.system.plain_files import read_plain
from ...runtime.system.storage import write_text, write_whole
from ..data.questions import Question
from .distribution import Kept

FORMAT = 1
"""Part of every key: another layout of the files, or another way to compute, is another key."""


@dataclass(frozen=True)
class ReferenceAnswer:
    """The reference's greedy answer. ``tokens`` end with the end token where the answer did.

    ``rows`` float16 (tokens measured, vocab) has the log-probabilities that the first tokens were
    chosen from. ``refused`` says why there is no answer at all: the prompt is longer than the context.
    """

    text: str
    tokens: tuple[int, ...]
    rows: Kept
    refused: str = ""


@dataclass(frozen=True)
class CandidateAnswer:
    """A candidate's own greedy answer, and how it judged each token of the reference's.

    ``kl`` in nats, by how much rounding may have moved it, and whether the likeliest token was the
    reference's: one a measured token.
    """

    text: str
    tokens: tuple[int, ...]
    kl: tuple[float, ...]
    kl_error: tuple[float, ...]
    top1: tuple[bool, ...]
    refused: str = ""

    @property
    def first_divergent(self) -> int | None:
        """Index of the first token on which the candidate would have gone another way."""
        return next((index for index, same in enumerate(self.top1) if not same), None)


def question_key(question: Question, *, context: int = 0) -> str:
    """Hash of what the model sees of ``question`` and of the context it has to fit (0: the model's).

    Raises OSError where a picture can't be read.
    """
    return hash_of([question.prompt, question.max_tokens, context, *picture_digests(question)])


def picture_digests(question: Question) -> tuple[str, ...]:
    """SHA-256 of each picture's file."""
    sources = (one if isinstance(one, bytes) else read_plain(one) for one in question.images)
    return tuple(hashlib.sha256(one).hexdigest() for one in sources)


def hash_of(value: object) -> str:
    """128 bits of SHA-256 over JSON-ready ``value``, in hex."""
    text = json.dumps([FORMAT, value], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class ReferenceStore:
    """Reference answers of one bundle, as compressed npz."""

    def __init__(self, folder: Path, reference: str) -> None:
        self.folder = folder / "references" / reference

    def path(self, question: str) -> Path:
        """Where the answer to the question with this key lies."""
        return self.folder / f"{question}.npz"

    def read(self, question: str) -> ReferenceAnswer | None:
        """The answer, or None where there is none that can be read."""
        try:
            with self.path(question).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return ReferenceAnswer(
                    text=str(arrays["text"]),
                    tokens=tuple(arrays["tokens"].tolist()),
                    rows=arrays["rows"],
                    refused=str(arrays["refused"]),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def write(self, question: str, answer: ReferenceAnswer) -> None:
        """Keep ``answer``. Raises :class:`StorageError`."""
        arrays: dict[str, Any] = {
            "text": np.array(answer.text),
            "tokens": np.array(answer.tokens, np.int32),
            "rows": answer.rows,
            "refused": np.array(answer.refused),
        }
        write_whole(self.path(question), lambda file: np.savez_compressed(file, **arrays))


class CandidateStore:
    """Answers of one candidate held against one reference, as JSON."""

    def __init__(self, folder: Path, reference: str, candidate: str) -> None:
        self.folder = folder / "candidates" / reference / candidate

    def path(self, question: str) -> Path:
        """Where the answer to the question with this key lies."""
        return self.folder / f"{question}.json"

    def read(self, question: str) -> CandidateAnswer | None:
        """The answer, or None where there is none that can be read."""
        try:
            raw = json.loads(self.path(question).read_text(encoding="utf-8"))
            values: dict[str, Any] = {name: _value(raw[name]) for name in _names()}
            return CandidateAnswer(**values)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, question: str, answer: CandidateAnswer) -> None:
        """Keep ``answer``. Raises :class:`StorageError`."""
        write_text(self.path(question), json.dumps(dataclasses.asdict(answer)))


def _names() -> Sequence[str]:
    return [one.name for one in dataclasses.fields(CandidateAnswer)]


def _value(raw: object) -> object:
    return tuple(raw) if isinstance(raw, list) else raw
