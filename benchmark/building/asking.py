"""What the bundle, or an endpoint, is asked while a benchmark is built: blind, for references, for more questions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ...runtime.model import Model
from ...runtime.pictures.picture import load_picture
from ..accuracy.divergence import answer_as_reference
from ..data.questions import Question
from ..judging.endpoint import Endpoint
from ..judging.judge import data_url
from ..reading.words import normalise
from .agreement import is_right
from .work import Work

ANSWER_TOKENS = 256
"""Tokens of a draft and of a blind answer: a person reads every one of them."""
LONGEST = 8000
"""Characters that an answer may have."""
PROPOSED = 3
"""Questions that are asked for about a picture."""
PROPOSE = (
    f"Write {PROPOSED} different questions about this picture, one a line. Each can be answered from the picture "
    "alone, and only by somebody who sees it. Write nothing else."
)
_LONGEST_QUESTION = 300
_NUMBERING = re.compile(r"^\s*(?:[-*\u2022]|\(?\d{1,2}[.):]|Q\d{0,2}[:.])\s*", re.IGNORECASE)


class Asker(Protocol):
    """Who answers: ``name`` is written beside a draft."""

    name: str

    def answer(self, prompt: str, pictures: Sequence[Path], max_tokens: int) -> str: ...


class BundleAsker:
    """A loaded bundle. Where the prompt does not fit the context, its answer is empty."""

    def __init__(self, model: Model, name: str, identity: str, work: Work) -> None:
        self.name = name
        self._model, self._identity, self._work = model, identity, work

    def answer(self, prompt: str, pictures: Sequence[Path], max_tokens: int) -> str:
        """The greedy answer, as ``benchmark accuracy`` has it of a reference. Raises NativeError, StorageError."""

        def ask() -> str:
            asked = Question("", "", prompt, tuple(pictures), (), "judged", max_tokens=max_tokens)
            return answer_as_reference(self._model, asked).text.strip()

        return self._work.text(_key(self._identity, prompt, pictures, max_tokens), ask)


class EndpointAsker:
    """A model behind an OpenAI-compatible endpoint; pictures go there without the metadata of their files."""

    def __init__(self, endpoint: Endpoint, work: Work) -> None:
        self.name = endpoint.model
        self._endpoint, self._work = endpoint, work

    def answer(self, prompt: str, pictures: Sequence[Path], max_tokens: int) -> str:
        """Its answer; none where that is longer than one may be: a person writes it then.

        Raises JudgeError, ImageError, StorageError.
        """

        def ask() -> str:
            urls = [data_url(load_picture(one)) for one in pictures]
            parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            content = [*parts, {"type": "text", "text": prompt}]
            text = self._endpoint.complete([{"role": "user", "content": content}]).text.strip()
            return text.encode("utf-8", "replace").decode() if len(text) <= LONGEST else ""

        return self._work.text(_key(self.name, prompt, pictures, max_tokens), ask)


def _key(who: str, prompt: str, pictures: Sequence[Path], max_tokens: int) -> str:
    digests = [hashlib.sha256(one.read_bytes()).hexdigest() for one in pictures]
    return f"{who}\n{max_tokens}\n{digests}\n{prompt}"


def blind_answer(asker: Asker, question: Question, reference: str) -> str:
    """What ``asker`` answers without the picture, where that is ``reference`` (:func:`is_right`); else ""."""
    if not reference:
        return ""
    given = asker.answer(question.prompt, (), min(question.max_tokens, ANSWER_TOKENS))
    return given if is_right(question, given) else ""


def proposed_questions(text: str) -> tuple[str, ...]:
    """The questions in what was answered to :data:`PROPOSE`: lines that end with a question mark, each once."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        question = _NUMBERING.sub("", line).strip().strip("*\"'").strip()
        if question.endswith(("?", "？")) and 8 <= len(question) <= _LONGEST_QUESTION:
            found.setdefault(normalise(question), question)
    return tuple(found.values())[:PROPOSED]
