"""Copies of displaced states: within their limit, never worse than none, put back where they reach furthest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llava_edge.runtime.errors import Cancelled
from llava_edge.runtime.language.kept_states import ContextState, KeptStates, Record
from llava_edge.runtime.language.kv_cache import KvCache
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import LoadOptions
from llava_edge.runtime.prompts.segments import (
    ImageSegment,
    OpenImage,
    Segment,
    TextSegment,
    common_prefix,
    total_positions,
)


class Context:
    """A context of 10 bytes a position that notes the most bytes that were ever kept."""

    def __init__(self, states: KeptStates, *, broken: bool = False) -> None:
        self.held: list[Segment] = []
        self.broken = broken
        self.full = False
        self.most = 0
        self._states = states

    def segments(self) -> list[Segment]:
        return self.held

    def reusable(self, wanted: Sequence[Segment]) -> int:
        return max(min(common_prefix(self.held, wanted), total_positions(wanted) - 1), 0)

    def state_size(self) -> int:
        return 10 * total_positions(self.held)

    def save(self) -> Any:
        if self.full:
            raise MemoryError
        self.most = max(self.most, self._states.size + self.state_size())
        return list(self.held)

    def restore(self, state: Any, segments: Record) -> bool:
        assert state == list(segments)
        self.held = [] if self.broken else list(state)
        return not self.broken

    def read(self, wanted: Sequence[Segment]) -> int:
        self._states.change_to(wanted, self)
        there = self.reusable(wanted)
        self.held = list(wanted)
        return there


PROMPTS = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=12).map(lambda tokens: [TextSegment(tuple(tokens))]), max_size=12
)


@given(prompts=PROMPTS, limit=st.integers(0, 300), broken=st.booleans())
def test_the_limit_holds_and_nothing_gets_worse(prompts: list[list[Segment]], limit: int, broken: bool) -> None:
    states = KeptStates(limit, least=2)
    context, alone = Context(states, broken=broken), Context(KeptStates(0))
    for prompt in prompts:
        there, there_alone = context.read(prompt), alone.read(prompt)
        assert states.size <= limit
        assert context.most <= limit
        assert broken or there >= there_alone


def test_without_memory_nothing_is_kept_and_all_goes_on() -> None:
    states = KeptStates(10_000, least=2)
    context = Context(states)
    context.full = True
    context.read([TextSegment((1,) * 9)])
    assert context.read([TextSegment((2,) * 9)]) == 0
    assert len(states) == 0


def test_a_state_that_is_refused_is_forgotten() -> None:
    states = KeptStates(10_000, least=2)
    context = Context(states)
    first, second = [TextSegment((1,) * 9)], [TextSegment((2,) * 9)]
    context.read(first)
    context.read(second)
    assert len(states) == 1
    context.broken = True
    assert context.read(first) == 0
    assert [kept.segments for kept in states._kept] == [tuple(second)]


def test_an_open_picture_at_the_end_is_kept_too(tiny_bundle: Path) -> None:
    """Reading that was cut off goes on behind its chunks after another conversation; the logits are a fresh model's."""
    llm = Llm(tiny_bundle / "llm.gguf", options=LoadOptions(batch=16, micro_batch=16))
    llm.ensure_context(256)
    image = ImageSegment("picture", 70)
    rows = {"picture": np.random.default_rng(1).normal(0, 0.3, (70, llm.dim)).astype(np.float32)}
    wanted: list[Segment] = [TextSegment((1, 2, 3)), image, TextSegment((4, 5))]
    cache, states = KvCache(llm, batch=16), KeptStates(2**30, least=16)
    cache.prefill(wanted, rows)
    expected = llm.logits()
    cache.clear()
    asked = iter([False] * 3 + [True])
    with pytest.raises(Cancelled):
        cache.prefill(wanted, rows, cancelled=lambda: next(asked))
    assert cache.segments()[-1] == OpenImage(image, 32)
    other = [TextSegment(tuple(range(20, 90)))]
    holder = ContextState(llm, cache)
    states.change_to(other, holder)
    cache.prefill(other, {})
    states.change_to(wanted, holder)
    assert cache.prefill(wanted, rows) == 3 + 32
    np.testing.assert_array_equal(llm.logits(), expected)
    states.change_to(other, holder)  # the picture read to its end takes the place of its open beginning
    assert [total_positions(kept.segments) for kept in states._kept] == [75, 70]
    llm.close()
