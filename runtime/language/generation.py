"""From segments to an answer: prefill, then one token at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..answer import FinishReason
from ..callbacks import Cancel, Progress
from ..errors import Cancelled, ContextError
from ..options import GenerationOptions
from ..prompts.prompt import Prompt
from ..prompts.segments import Segment, TextSegment
from .interface import LanguageModel, TokenSampler
from .kv_cache import KvCache
from .text_stream import TextStream


@dataclass
class Run:
    """What is known of an answer so far; it stays valid wherever the answer is cut off."""

    started: float
    seed: int
    stream: TextStream
    tokens: list[int] = field(default_factory=list)
    finish_reason: FinishReason = "cancel"
    cached_tokens: int = 0
    prompt_engine_tokens: int = 0
    encode: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    first_token: float = 0.0


def new_run(options: GenerationOptions) -> Run:
    """Start the clock and settle the seed of an answer."""
    seed = int.from_bytes(os.urandom(4), "little") if options.seed is None else options.seed
    return Run(time.perf_counter(), seed, TextStream(options.stop))


def room_for_answer(prompt: Prompt, limit: int, options: GenerationOptions) -> int:
    """Tokens the answer may have. Raises :class:`ContextError` where the prompt leaves none."""
    total = len(prompt)
    if total >= limit:
        text = sum(len(segment) for segment in prompt.segments if isinstance(segment, TextSegment))
        raise ContextError(
            expected=f"a prompt of fewer than {limit} positions (the context)",
            got=f"{total} ({total - text} of pictures, {text} of text)",
            fix='shorten the text, use fewer pictures, detail="low" or picture_tokens="25%" (lossy), '
            "or start a new conversation"
            if total > text
            else "shorten the text, or start a new conversation",
        )
    return min(options.max_tokens, limit - total)


def generate(
    llm: LanguageModel,
    cache: KvCache,
    prompt: Prompt,
    *,
    options: GenerationOptions,
    room: int,
    run: Run,
    on_progress: Progress | None = None,
    cancelled: Cancel | None = None,
) -> Iterator[str]:
    """Prefill ``prompt`` and yield the answer's text token by token, recording it in ``run``; that of one may be empty.

    ``room`` is how many tokens the answer may have (:func:`room_for_answer`). Ends early, with
    ``finish_reason`` "cancel", where ``cancelled`` says so.
    """
    llm.ensure_context(len(prompt) + room)
    began = time.perf_counter()
    try:
        run.cached_tokens = cache.prefill(prompt.segments, prompt.rows, on_progress=on_progress, cancelled=cancelled)
    except Cancelled:
        return
    finally:
        run.prefill = time.perf_counter() - began
        run.prompt_engine_tokens = cache.read_by_engine
    sampler = llm.sampler(options, seed=run.seed, recent=_recent_tokens(prompt.segments))
    try:
        yield from _decode(llm, cache, sampler, room, run, cancelled)
    finally:
        sampler.close()


def _decode(
    llm: LanguageModel, cache: KvCache, sampler: TokenSampler, room: int, run: Run, cancelled: Cancel | None
) -> Iterator[str]:
    token = sampler.sample()
    began = time.perf_counter()
    run.first_token = began - run.started
    while not llm.is_end(token):
        text = run.stream.push(llm.piece(token, first=not run.tokens))
        run.tokens.append(token)
        run.decode = time.perf_counter() - began
        yield text
        if run.stream.stopped:
            break
        if len(run.tokens) == room:
            run.finish_reason = "length"
            break
        if cancelled is not None and cancelled():
            return
        try:
            cache.append(token, cancelled=cancelled)
        except Cancelled:
            return
        token = sampler.sample()
    run.decode = time.perf_counter() - began
    text = run.stream.finish()  # may complete a stop string
    if run.finish_reason == "cancel" or run.stream.stopped:
        run.finish_reason = "stop"
    if text:
        yield text


def _recent_tokens(segments: Sequence[Segment]) -> list[int]:
    return [token for segment in segments if isinstance(segment, TextSegment) for token in segment.tokens]
