"""Answers in free form, marked by a judge: any OpenAI-compatible endpoint that can see pictures.

The procedure is that of LLaVA-Bench (Wilder): the judge gets picture, question, reference answer
and the model's answer, the reference has full marks by agreement, and a score is the model's marks
relative to it (lmms-eval's tasks ``llava_in_the_wild`` and ``llava_wilder_small``). The wording is
ours, so scores compare models of one judge, not with published tables.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.errors import OptionError
from ...runtime.pictures.picture import Picture, load_picture
from ..data.questions import Question
from .endpoint import Endpoint
from .verdicts import Spent, Verdict, VerdictFile

FULL_MARKS = 10
MAX_PNG = 4_000_000
"""Bytes from which a picture is sent as JPEG instead: endpoints limit a request to about 20 MB."""

RULES = f"""You mark answers to a question about the picture you are shown.

Two assistants answered. Assistant 1's answer is the reference: take it as correct, it always gets \
{FULL_MARKS} marks. Mark Assistant 2's answer from 1 to {FULL_MARKS} by how helpful, relevant, accurate \
and detailed it is beside the reference and the picture. Its style and length alone earn and cost nothing.

Write the two marks on the first line, Assistant 1's first, with a space between them and nothing \
else. Explain them from the second line on."""


@dataclass(frozen=True)
class Prices:
    """Money a million tokens cost, in any currency."""

    prompt: float = 0.0
    completion: float = 0.0

    def __post_init__(self) -> None:
        if not (self.prompt >= 0 and self.completion >= 0):
            raise OptionError(expected="prices of at least 0", got=str(self), fix="give prices a million tokens")


class Judge:
    """Asks for verdicts, one at a time, and keeps each in ``verdicts`` as it comes.

    Run again with the same file, it asks only for what is missing; the same answer to the same
    question is paid for once, whichever model gave it.
    """

    def __init__(self, endpoint: Endpoint, verdicts: Path, *, prices: Prices | None = None) -> None:
        self._endpoint = endpoint
        self._verdicts = VerdictFile(verdicts)
        self._prices = prices or Prices()

    @property
    def spent(self) -> Spent:
        """What the verdicts in the file have cost, earlier runs included."""
        return self._verdicts.spent

    def mark(self, question: Question, answer: str) -> Verdict:
        """The verdict on ``answer``; its ``score`` is None where the judge gave no marks that can be read.

        Such a verdict is asked for once more here, and again in the next run. Raises
        :class:`JudgeError`, ImageError, StorageError, and OptionError for a question without a
        reference that somebody vouches for.
        """
        if question.metric != "judged" or not question.answers:
            raise OptionError(
                expected=f"a judged question with a reference answer as {question.id}",
                got=question.metric,
                fix="score it by its own metric",
            )
        if not (question.confirmed and question.answers[0]):
            raise OptionError(
                expected=f"a reference answer to {question.id} that somebody confirmed",
                got="one that nobody did" if question.answers[0] else "none",
                fix="confirm it: llava-edge benchmark confirm FOLDER",
            )
        pictures = [load_picture(one) for one in question.images]
        key = self._key(question, answer, pictures)
        if (known := self._verdicts.find(key)) is not None:
            return known
        messages = _messages(question, answer, pictures)
        verdict = self._ask(key, question, messages)
        return verdict if verdict.score is not None else self._ask(key, question, messages)

    def _ask(self, key: str, question: Question, messages: list[dict[str, Any]]) -> Verdict:
        reply = self._endpoint.complete(messages)
        reference, candidate = read_marks(reply.text) or (None, None)
        cost = (reply.prompt_tokens * self._prices.prompt + reply.completion_tokens * self._prices.completion) / 1e6
        verdict = Verdict(
            key, question.id, reference, candidate, reply.text, reply.prompt_tokens, reply.completion_tokens, cost
        )
        self._verdicts.add(verdict)
        return verdict

    def _key(self, question: Question, answer: str, pictures: Sequence[Picture]) -> str:
        parts = [self._endpoint.model, RULES, question.prompt, question.answers[0], answer]
        parts += [one.digest for one in pictures]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_marks(review: str) -> tuple[float, float] | None:
    """The two marks of a review, or None.

    Taken from the first line that is nothing but two numbers, however decorated ("10 8.5",
    "**10/10, 8/10**", "Scores: 10 and 8"); else from "Assistant 1: 10" and "Assistant 2: 8".
    """
    text = re.sub(r"<think>.*?(</think>|\Z)", "", review, flags=re.DOTALL)
    text = re.sub(r"(\d)\s*/\s*10\b", r"\1", re.sub(r"[*_`#]", "", text))
    for line in text.splitlines():
        if match := re.fullmatch(
            r"\W*(?:scores?|marks?)?\W*(\d+(?:\.\d+)?)(?:\s*[,;:|&]\s*|\s+and\s+|\s+)(\d+(?:\.\d+)?)\W*", line, re.I
        ):
            return _valid(match[1], match[2])
    named = [re.search(rf"assistant\s+{one}\b[^\d\n]{{0,30}}(\d+(?:\.\d+)?)", text, re.I) for one in (1, 2)]
    return _valid(named[0][1], named[1][1]) if named[0] and named[1] else None


def _valid(reference: str, candidate: str) -> tuple[float, float] | None:
    marks = float(reference), float(candidate)
    return marks if 0 < marks[0] <= FULL_MARKS and 0 <= marks[1] <= FULL_MARKS else None


def _messages(question: Question, answer: str, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    text = "\n\n".join(
        [
            f"[Question]\n{question.prompt}",
            f"[Assistant 1]\n{question.answers[0]}\n[End of Assistant 1]",
            f"[Assistant 2]\n{answer}\n[End of Assistant 2]",
        ]
    )
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(one)}} for one in pictures]
    return [
        {"role": "system", "content": RULES},
        {"role": "user", "content": [*parts, {"type": "text", "text": text}]},
    ]


def data_url(picture: Picture) -> str:
    """A picture as a ``data:`` URL: pixels as our model sees them, without the file's metadata (where, when)."""
    buffer = io.BytesIO()
    picture.image.save(buffer, "PNG")
    kind = "png"
    if buffer.tell() > MAX_PNG:
        buffer = io.BytesIO()
        picture.image.save(buffer, "JPEG", quality=92)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
