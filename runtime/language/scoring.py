"""Scoring: a model's logits along given tokens, one token computed after the other as a chat does it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from ..prompts.prompt import Prompt
from ..prompts.segments import ImageSegment, TextSegment
from .interface import LanguageModel
from .kv_cache import KvCache


def logits_along(
    llm: LanguageModel,
    cache: KvCache,
    prompt: Prompt,
    tokens: Iterable[int] = (),
    *,
    room: int = 0,
    reproducible: bool = False,
) -> Iterator[npt.NDArray[np.float32]]:
    """Logits (vocabulary,) behind ``prompt``, and then behind each of ``tokens`` in turn.

    ``tokens`` may be a list that the caller appends to meanwhile: it is how an answer is chosen from
    the logits. ``room`` makes place for so many tokens at once. A ``reproducible`` prompt is computed
    in the same chunks whatever the cache held before, so the same prompt gives the same numbers.
    """
    llm.ensure_context(len(prompt) + room)
    if reproducible:
        _prefill_behind_pictures(cache, prompt)
    cache.prefill(prompt.segments, prompt.rows)
    yield llm.logits()
    for token in tokens:
        cache.append(token)
        yield llm.logits()


def _prefill_behind_pictures(cache: KvCache, prompt: Prompt) -> None:
    """Bring the cache to the prompt's first token behind its last picture.

    A warm cache must compute one position behind the picture again for its logits, and so a cold one
    does the same: the text is computed as its first token and then the others.
    """
    pictures = [index for index, segment in enumerate(prompt.segments) if isinstance(segment, ImageSegment)]
    shared = pictures[-1] + 1 if pictures else 0
    if not shared or tuple(cache.segments()[:shared]) != prompt.segments[:shared]:
        cache.clear()
    behind = prompt.segments[shared:]
    if behind and isinstance(behind[0], TextSegment):
        cache.prefill([*prompt.segments[:shared], TextSegment(behind[0].tokens[:1])], prompt.rows)
