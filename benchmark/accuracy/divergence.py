"""What a model answers greedily, and how it judges, token by token, what the reference answered.

Both are computed one token at a time, as a chat does it, and a picture is prefilled in the same
chunks whatever was asked before. So an answer does not depend on where a run was interrupted, and a
bundle held against itself diverges by exactly 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...runtime.callbacks import Embeddings
from ...runtime.errors import ContextError, OptionError
from ...runtime.language.generation import room_for_answer
from ...runtime.language.text_stream import TextStream
from ...runtime.model import Model
from ...runtime.options import GenerationOptions
from ...runtime.prompts.segments import ImageSegment, Segment, TextSegment, total_positions
from ...runtime.prompts.template import TemplateMessage
from ..data.questions import Question
from .answer_store import CandidateAnswer, ReferenceAnswer
from .distribution import Kept, divergence, error_bound, keep, log_probabilities

MEASURED = 64
"""Tokens of an answer that are measured. More of a long one say little new, and each costs 0.2 MB on disk."""


@dataclass(frozen=True)
class Prompt:
    """A question ready to prefill: its segments, its pictures' embeddings by digest, tokens an answer may have."""

    segments: tuple[Segment, ...]
    embeddings: Mapping[str, Embeddings]
    room: int


def answer_as_reference(model: Model, question: Question) -> ReferenceAnswer:
    """Answer greedily and keep the distributions of the first ``MEASURED`` tokens. Raises ImageError."""
    rows = np.zeros((0, model.llm.vocab_size), np.float16)
    try:
        prompt = prepare(model, question)
    except ContextError as error:
        return ReferenceAnswer("", (), rows, refused=f"{error.got}, expected {error.expected}")
    _read(model, prompt)
    kept: list[Kept] = []
    tokens: list[int] = []
    while True:
        logits = model.llm.logits()
        if len(kept) < MEASURED:
            kept.append(keep(log_probabilities(logits)))
        tokens.append(int(logits.argmax()))
        if _complete(model, tokens, prompt):
            return ReferenceAnswer(text_of(model, tokens), tuple(tokens), np.stack(kept))
        model.cache.append(tokens[-1])


def answer_as_candidate(model: Model, question: Question, reference: ReferenceAnswer) -> CandidateAnswer:
    """Judge the measured tokens of ``reference``, then give the answer that this model would have given.

    Both share the prefill, and the tokens up to the first on which they part. Raises ImageError,
    and OptionError where the vocabularies differ.
    """
    _check_vocabulary(model, reference)
    if reference.refused:
        return CandidateAnswer("", (), (), (), (), refused=reference.refused)
    prompt = prepare(model, question)
    _read(model, prompt)
    kl, error, likeliest = [], [], []
    for index, row in enumerate(reference.rows):
        if index:
            model.cache.append(reference.tokens[index - 1])
        logits = model.llm.logits()
        logprobs = log_probabilities(logits)
        kl.append(divergence(row, logprobs))
        error.append(error_bound(row, logprobs))
        likeliest.append(int(logits.argmax()))
    top1 = tuple(one == token for one, token in zip(likeliest, reference.tokens, strict=False))
    shared = top1.index(False) if False in top1 else len(top1) - 1
    tokens = _continue(model, prompt, [*reference.tokens[:shared], likeliest[shared]])
    return CandidateAnswer(text_of(model, tokens), tuple(tokens), tuple(kl), tuple(error), top1)


def prepare(model: Model, question: Question) -> Prompt:
    """Plan the prompt, then encode its pictures and make room. Raises ContextError before it encodes."""
    pictures = [model.open_image(one) for one in question.images]
    segments = model.chat().plan(TemplateMessage("user", question.prompt, len(pictures)), pictures)
    room = room_for_answer(segments, model.context_limit, GenerationOptions(max_tokens=question.max_tokens))
    encoded = [model.encode_image(one) for one in pictures]
    model.llm.ensure_context(total_positions(segments) + room)
    return Prompt(tuple(segments), {one.key: one.embeddings for one in encoded}, room)


def text_of(model: Model, tokens: Sequence[int]) -> str:
    """The text of generated ``tokens``."""
    stream = TextStream()
    for index, token in enumerate(tokens):
        if not model.llm.is_end(token):
            stream.push(model.llm.piece(token, first=index == 0))
    stream.finish()
    return stream.text


def _read(model: Model, prompt: Prompt) -> None:
    """Prefill the prompt, keeping the cache only up to its last picture, where that is there whole.

    The text behind it is computed as its first token and then the others: a warm cache must
    compute one position behind the picture again, and so a cold one does the same.
    """
    pictures = [index for index, one in enumerate(prompt.segments) if isinstance(one, ImageSegment)]
    shared = pictures[-1] + 1 if pictures else 0
    if not shared or tuple(model.cache.segments()[:shared]) != prompt.segments[:shared]:
        model.cache.clear()
    behind = prompt.segments[shared:]
    if behind and isinstance(behind[0], TextSegment):
        first = TextSegment(behind[0].tokens[:1])
        model.cache.prefill([*prompt.segments[:shared], first], prompt.embeddings)
    model.cache.prefill(prompt.segments, prompt.embeddings)


def _continue(model: Model, prompt: Prompt, tokens: list[int]) -> list[int]:
    """Go on greedily behind ``tokens``; the cache is rewound to where they part from what it holds."""
    tokens = list(tokens)
    if _complete(model, tokens, prompt):
        return tokens
    *before, last = prompt.segments
    text = last.tokens if isinstance(last, TextSegment) else ()
    whole = [*before] if text else [*before, last]
    model.cache.prefill([*whole, TextSegment((*text, *tokens))], prompt.embeddings)
    while True:
        tokens.append(int(model.llm.logits().argmax()))
        if _complete(model, tokens, prompt):
            return tokens
        model.cache.append(tokens[-1])


def _complete(model: Model, tokens: Sequence[int], prompt: Prompt) -> bool:
    return model.llm.is_end(tokens[-1]) or len(tokens) == prompt.room


def _check_vocabulary(model: Model, reference: ReferenceAnswer) -> None:
    if model.llm.vocab_size != reference.rows.shape[1]:
        raise OptionError(
            expected=f"a candidate with the reference's vocabulary of {reference.rows.shape[1]} tokens",
            got=str(model.llm.vocab_size),
            fix="compare bundles of the same model",
        )
