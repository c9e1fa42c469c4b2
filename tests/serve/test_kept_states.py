"""Conversations that take turns keep what was read of each, within a limit, and answer as if they were alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llava_edge.runtime import demo_bundle
from llava_edge.runtime.answer import Answer
from llava_edge.runtime.options import GenerationOptions, LoadOptions
from llava_edge.runtime.prompts.segments import Segment, TextSegment, common_prefix, total_positions
from llava_edge.serve.models.interface import Listener
from llava_edge.serve.models.kept_states import KeptStates
from llava_edge.serve.models.local import LocalModel
from llava_edge.serve.requests.values import Asked, Message, SentPicture

SIGN = (Path(__file__).parents[2] / "examples" / "sign.png").read_bytes()
PICTURE = SentPicture(SIGN, "high")
LOW = SentPicture(SIGN, "low")
TITLE = Asked((Message("user", ("Write a title. " * 20,)),), {"max_tokens": 8})
ONE = Asked((Message("user", (PICTURE, "What does the sign say?")),), {"max_tokens": 8})
TWO = Asked((Message("user", (LOW, LOW, LOW, LOW, LOW, "How many shapes are there?")),), {"max_tokens": 8})


def ask(model: LocalModel, asked: Asked) -> Answer:
    return model.answer(asked, Listener(lambda text: None, lambda *_: None, lambda *_: None), threading.Event().is_set)


def made(limit: int) -> LocalModel:
    return LocalModel(demo_bundle(), LoadOptions(), GenerationOptions(), KeptStates(limit, least=16))


@pytest.fixture(scope="module")
def keeping() -> Iterator[LocalModel]:
    model = made(2**30)
    yield model
    model.close()


@pytest.fixture(scope="module")
def forgetting() -> Iterator[LocalModel]:
    model = made(0)
    yield model
    model.close()


def test_who_takes_turns_is_not_read_again(keeping: LocalModel, forgetting: LocalModel) -> None:
    seen: set[int] = set()
    for asked in (ONE, TITLE, TWO, ONE, TWO, TITLE, ONE):
        answer, alone = ask(keeping, asked), ask(forgetting, asked)
        assert answer.tokens == alone.tokens
        again = id(asked) in seen
        assert (answer.cached_tokens >= answer.prompt_tokens - 1) == again
        assert alone.cached_tokens < 16
        seen.add(id(asked))


def test_a_conversation_goes_on_where_it_was(keeping: LocalModel) -> None:
    first = ask(keeping, ONE)
    ask(keeping, TITLE)
    more = Asked((*ONE.messages, Message("assistant", (first.text,)), Message("user", ("Which colour?",))))
    assert ask(keeping, more).cached_tokens >= first.prompt_tokens


@pytest.mark.parametrize("options", [{"kv_type_k": "q8_0"}, {"context": 1024}])
def test_with_other_caches(options: dict[str, Any]) -> None:
    model = LocalModel(demo_bundle(), LoadOptions(**options), GenerationOptions(), KeptStates(2**30, least=16))
    try:
        first = ask(model, ONE)
        ask(model, TITLE)
        again = ask(model, ONE)
        assert (again.tokens, again.cached_tokens) == (first.tokens, first.prompt_tokens - 1)
    finally:
        model.close()


class Context:
    """A context of 10 bytes a position that notes the most bytes that were ever kept."""

    def __init__(self, states: KeptStates, *, broken: bool = False) -> None:
        self.held: list[Segment] = []
        self.broken = broken
        self.most = 0
        self._states = states

    def segments(self) -> list[Segment]:
        return self.held

    def reusable(self, wanted: Sequence[Segment]) -> int:
        return max(min(common_prefix(self.held, wanted), total_positions(wanted) - 1), 0)

    def state_size(self) -> int:
        return 10 * total_positions(self.held)

    def save(self) -> Any:
        self.most = max(self.most, self._states.size + self.state_size())
        return list(self.held)

    def restore(self, state: Any, segments: Sequence[Segment]) -> bool:
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
