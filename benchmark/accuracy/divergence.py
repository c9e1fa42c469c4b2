"""What a model answers greedily, and how it judges, token by token, what the reference answered.

Both are computed one token at a time, as a chat does it, and a picture is prefilled in the same
chunks whatever was asked before. So an answer does not depend on where a run was interrupted, and a
bundle held against itself diverges by exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...runtime.distances import log_softmax
from ...runtime.engine.engine import Engine
from ...runtime.errors import ContextError, ImageError, OptionError
from ...runtime.language.generation import room_for_answer
from ...runtime.language.scoring import logits_along
from ...runtime.language.text_stream import TextStream
from ...runtime.model import Model
from ...runtime.options import GenerationOptions
from ...runtime.prompts.prompt import Prompt
from ...runtime.prompts.template import TemplateMessage
from ..data.questions import Question
from .answer_store import CandidateAnswer, ReferenceAnswer
from .distribution import Kept, divergence, error_bound, keep

MEASURED = 64
"""Tokens of an answer that are measured. More of a long one say little new, and each costs 0.2 MB on disk."""


def answer_as_reference(model: Model, question: Question) -> ReferenceAnswer:
    """Answer greedily and keep the distributions of the first ``MEASURED`` tokens.

    A question that does not fit the context, or whose picture can't be shown, has no answer: ``refused`` says why.
    """
    engine = model.engine
    rows = np.zeros((0, engine.llm.vocab_size), np.float16)
    try:
        prompt, room = prepare(engine, question)
    except (ContextError, ImageError) as error:
        return ReferenceAnswer("", (), rows, refused=f"{error.got}, expected {error.expected}")
    kept: list[Kept] = []
    tokens: list[int] = []
    for logits in logits_along(engine.llm, engine.cache, prompt, tokens, room=room, reproducible=True):
        if len(kept) < MEASURED:
            kept.append(keep(log_softmax(logits)))
        tokens.append(int(logits.argmax()))
        if _complete(engine, tokens, room):
            break
    return ReferenceAnswer(text_of(engine, tokens), tuple(tokens), np.stack(kept))


def answer_as_candidate(
    model: Model, question: Question, reference: ReferenceAnswer, picture_tokens: int | str | None = None
) -> CandidateAnswer:
    """Judge the measured tokens of ``reference``, then give the answer that this model would have given.

    ``picture_tokens`` are the positions that it has of each picture.

    Both share the prefill, and the tokens up to the first on which they part. Raises ImageError, and
    OptionError where the vocabularies differ.
    """
    engine = model.engine
    _check_vocabulary(engine, reference)
    if reference.refused:
        return CandidateAnswer("", (), (), (), (), refused=reference.refused)
    prompt, room = prepare(engine, question, picture_tokens)
    kl, error, likeliest = [], [], []
    given = reference.tokens[: len(reference.rows) - 1]
    along = logits_along(engine.llm, engine.cache, prompt, given, room=room, reproducible=True)
    for row, logits in zip(reference.rows, along, strict=True):
        logprobs = log_softmax(logits)
        kl.append(divergence(row, logprobs))
        error.append(error_bound(row, logprobs))
        likeliest.append(int(logits.argmax()))
    top1 = tuple(one == token for one, token in zip(likeliest, reference.tokens, strict=False))
    shared = top1.index(False) if False in top1 else len(top1) - 1
    tokens = _continue(engine, prompt, room, [*reference.tokens[:shared], likeliest[shared]])
    return CandidateAnswer(text_of(engine, tokens), tuple(tokens), tuple(kl), tuple(error), top1)


def prepare(engine: Engine, question: Question, picture_tokens: int | str | None = None) -> tuple[Prompt, int]:
    """The prompt, its pictures encoded, and the tokens its answer may have. Raises ContextError before it encodes."""
    opened = [engine.pictures.open(image, picture_tokens=picture_tokens) for image in question.images]
    messages = [TemplateMessage("user", question.prompt, len(opened))]
    prompt = engine.prompt(messages, opened)
    room = room_for_answer(prompt, engine.context_limit, GenerationOptions(max_tokens=question.max_tokens))
    encoded = [engine.pictures.encode(image) for image in opened]
    return prompt.with_rows({image.key: image.embeddings for image in encoded}), room


def text_of(engine: Engine, tokens: Sequence[int]) -> str:
    """The text of generated ``tokens``."""
    stream = TextStream()
    for index, token in enumerate(tokens):
        if not engine.llm.is_end(token):
            stream.push(engine.llm.piece(token, first=index == 0))
    stream.finish()
    return stream.text


def _continue(engine: Engine, prompt: Prompt, room: int, tokens: list[int]) -> list[int]:
    """Go on greedily behind ``tokens``; the cache is rewound to where they part from what it holds."""
    if _complete(engine, tokens, room):
        return tokens
    more: list[int] = []
    for logits in logits_along(engine.llm, engine.cache, prompt.followed_by(tokens), more):
        more.append(int(logits.argmax()))
        if _complete(engine, [*tokens, *more], room):
            break
    return [*tokens, *more]


def _complete(engine: Engine, tokens: Sequence[int], room: int) -> bool:
    return engine.llm.is_end(tokens[-1]) or len(tokens) == room


def _check_vocabulary(engine: Engine, reference: ReferenceAnswer) -> None:
    if engine.llm.vocab_size != reference.rows.shape[1]:
        raise OptionError(
            expected=f"a candidate with the reference's vocabulary of {reference.rows.shape[1]} tokens",
            got=str(engine.llm.vocab_size),
            fix="compare bundles of the same model",
        )
