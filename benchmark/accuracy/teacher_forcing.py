"""How far a bundle's next-token distributions are from another's, on given answers about pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.distances import log_softmax
from ...runtime.errors import OptionError
from ...runtime.model import Model, load
from ...runtime.prompts.conversations import find_samples, read_samples
from ...runtime.prompts.segments import Segment, TextSegment, build_segments
from ...runtime.prompts.template import TemplateMessage, render

LogProbabilities = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Question:
    """A picture, a question about it, and the answer to be forced."""

    picture: Path
    text: str
    answer: str


def read_questions(folder: Path, limit: int = 0) -> list[Question]:
    """First questions of the records about one picture in ``folder`` (LLaVA's JSON format).

    At most ``limit``, evenly spread; 0 takes all. Raises :class:`DataError`.
    """
    samples = read_samples(find_samples(folder))
    conversations = [samples.conversation(index) for index in range(len(samples))]
    found = [
        Question(folder / conversation.images[0], conversation.messages[0].text, conversation.messages[1].text)
        for conversation in conversations
        if len(conversation.images) == 1 and conversation.messages[0].images == 1
    ]
    step = max(1.0, len(found) / limit) if limit else 1.0
    return [found[int(index * step)] for index in range(int(len(found) / step))]


def force_answers(
    bundle: Path, questions: Sequence[Question], *, threads: int = 0, on_progress: Progress = lambda done, total: None
) -> list[LogProbabilities]:
    """Log-probabilities (answer tokens with the end token, vocab) of every question's answer in turn."""
    found = []
    with load(bundle, threads=threads) as model:
        for done, question in enumerate(questions, start=1):
            found.append(_force(model, question))
            on_progress(done, len(questions))
    return found


def _force(model: Model, question: Question) -> LogProbabilities:
    image = model.encode_image(question.picture)
    asked = TemplateMessage("user", question.text, 1)
    prompt = model.chat().plan(asked, [image])
    spec = model.manifest.template
    pieces = render(spec, [asked, TemplateMessage("assistant", question.answer)], answering=False)
    whole = build_segments(pieces, [image.segment], spec=spec, tokenize=model.llm.tokenize)
    tokens = _answer_tokens(model, prompt, whole)
    model.llm.ensure_context(sum(len(one) for one in whole))
    model.cache.prefill(prompt, {image.key: image.embeddings})
    rows = [log_softmax(model.llm.logits())]
    for token in tokens[:-1]:
        model.cache.append(token)
        rows.append(log_softmax(model.llm.logits()))
    return np.asarray(rows, np.float32)


def _answer_tokens(model: Model, prompt: Sequence[Segment], whole: Sequence[Segment]) -> list[int]:
    """What the whole conversation has after the prompt, up to the token that ends the answer."""
    asked, told = prompt[-1], whole[-1]
    if not isinstance(asked, TextSegment) or not isinstance(told, TextSegment):
        raise OptionError(expected="a template that ends with text", got="a picture", fix="check the chat template")
    tokens = list(told.tokens[len(asked) :])
    if told.tokens[: len(asked)] != asked.tokens or not tokens:
        raise OptionError(
            expected="a template that continues a prompt with the answer", got="another text", fix="check it"
        )
    end = next((index for index, token in enumerate(tokens) if model.llm.is_end(token)), len(tokens) - 1)
    return tokens[: end + 1]


def divergence(reference: LogProbabilities, candidate: LogProbabilities) -> npt.NDArray[np.float64]:
    """KL divergence in nats, reference to candidate, at each position."""
    expected = reference.astype(np.float64)
    return np.asarray((np.exp(expected) * (expected - candidate)).sum(axis=-1))


def mean_by_picture(questions: Sequence[Question], values: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Sum and count of per-position ``values``, one row a picture: (pictures, 2)."""
    names = sorted({question.picture for question in questions})
    rows = {name: np.zeros(2) for name in names}
    for question, one in zip(questions, values, strict=True):
        rows[question.picture] += (float(one.sum()), len(one))
    return np.array([rows[name] for name in names])
