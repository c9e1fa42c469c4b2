"""Whatever is asked, cut off or broken: the record is what the model holds, and only what is new is computed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise, takewhile

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from llava_edge.runtime.callbacks import Cancel, Rows
from llava_edge.runtime.errors import Cancelled, NativeError
from llava_edge.runtime.language.kv_cache import KvCache
from llava_edge.runtime.prompts.segments import ImageSegment, OpenImage, Segment, TextSegment

Row = tuple[int, ...]
"""What stands at one position: (token,), or a picture's (number, length, index)."""

TOKEN = -1
"""Marks the row of embeddings that stands for a token."""


class FakeModel:
    """Remembers every position's row, and refuses what llama.cpp would compute wrongly or not survive."""

    def __init__(self, batch: int, joins_text: bool = False) -> None:
        self.batch, self.context, self.joins_text = batch, 0, joins_text
        self.held: list[Row] = []
        self.computed = 0
        self.asked_for: list[int] = []
        self.latest: int | None = None
        self.sound = True
        self.failing_after: int | None = None
        self.stopped_by: type[BaseException] = Cancelled
        self.stopping_after: int | None = None

    def truncate(self, positions: int) -> None:
        assert positions >= 0
        del self.held[positions:]
        self.latest, self.sound = None, self.sound or not positions

    def decode_tokens(
        self, tokens: Sequence[int], position: int, *, logits: bool, cancelled: Cancel | None = None
    ) -> None:
        self._decode([(token,) for token in tokens], position, logits)

    def embeddings(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        assert self.joins_text
        return np.array([(token, TOKEN, TOKEN) for token in tokens], np.float32)

    def decode_embeddings(
        self, embeddings: npt.NDArray[np.float32], position: int, *, logits: bool, cancelled: Cancel | None = None
    ) -> None:
        rows = [tuple(map(int, row)) for row in embeddings]
        self._decode([row[:1] if TOKEN in row else row for row in rows], position, logits)

    def _decode(self, rows: list[Row], position: int, logits: bool) -> None:
        assert self.sound, "computed behind what a failed call has left"
        assert 0 < len(rows) <= self.batch
        assert position == len(self.held)
        assert position + len(rows) <= self.context
        if self.failing_after == 0:
            self.held += rows[: len(rows) // 2]  # some of it may have been written
            self.failing_after, self.sound = None, False
            raise NativeError(expected="positions", got="none", fix="load again")
        if self.failing_after is not None:
            self.failing_after -= 1
        if self.stopping_after == 0:
            self.held += rows[: len(rows) // 2]
            self.stopping_after = None
            raise self.stopped_by
        if self.stopping_after is not None:
            self.stopping_after -= 1
        self.held += rows
        self.computed += len(rows)
        self.latest = len(self.held) - 1 if logits else None
        self.asked_for += [self.latest] if logits else []


def picture_rows(picture: ImageSegment) -> npt.NDArray[np.float32]:
    return np.array([(ord(picture.digest), len(picture), index) for index in range(len(picture))], np.float32)


class BrokenRows:
    """A picture's rows whose encoder ends with ``error`` behind the first ``good`` of them."""

    def __init__(self, picture: ImageSegment, good: int, error: type[BaseException]) -> None:
        self.picture, self.good, self.error = picture, good, error

    def __getitem__(self, rows: slice) -> npt.NDArray[np.float32]:
        if rows.stop > self.good:
            raise self.error
        return picture_rows(self.picture)[rows]


def rows_of(segments: Sequence[Segment | OpenImage]) -> list[Row]:
    rows: list[Row] = []
    for segment in segments:
        if isinstance(segment, TextSegment):
            rows += [(token,) for token in segment.tokens]
        elif isinstance(segment, OpenImage):
            rows += rows_of([segment.image])[: segment.held]
        else:
            rows += [tuple(map(int, row)) for row in picture_rows(segment)]
    return rows


def embeddings_of(segments: Sequence[Segment]) -> dict[str, Rows]:
    return {segment.digest: picture_rows(segment) for segment in segments if isinstance(segment, ImageSegment)}


def shared(one: Sequence[Row], other: Sequence[Row]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def whole_pictures(segments: Sequence[Segment], positions: int) -> int:
    """The most of ``positions`` that cuts no picture in two."""
    ends = list(accumulate((len(segment) for segment in segments), initial=0))
    allowed = set(ends)
    for start, segment in zip(ends, segments, strict=False):
        if isinstance(segment, TextSegment):
            allowed.update(range(start, start + len(segment)))
    return max(position for position in allowed if position <= positions)


def in_open_picture(cached: Sequence[Segment | OpenImage], wanted: Sequence[Segment], positions: int) -> bool:
    """Whether what is shared ends where reading a picture was cut off."""
    last = cached[-1] if cached else None
    if not isinstance(last, OpenImage) or positions != sum(len(one) for one in cached):
        return False
    return len(wanted) >= len(cached) and wanted[len(cached) - 1] == last.image


def sizes(positions: int, batch: int) -> list[int]:
    """Of the chunks of a prompt in one run: the last has half a batch, if it is not the only one."""
    whole, rest = divmod(positions, batch)
    if whole and 0 < rest < batch // 2:
        return [batch] * (whole - 1) + [batch + rest - batch // 2, batch // 2]
    return [batch] * whole + [rest] * bool(rest)


def joined(segments: Sequence[Segment | OpenImage]) -> list[Segment | OpenImage]:
    """As a prompt has them: no two runs of tokens side by side."""
    found: list[Segment | OpenImage] = []
    for segment in segments:
        if found and isinstance(segment, TextSegment) and isinstance(found[-1], TextSegment):
            segment = TextSegment(found.pop().tokens + segment.tokens)  # type: ignore[union-attr]
        found.append(segment)
    return found


TEXTS = strategies.lists(strategies.integers(0, 2), min_size=1, max_size=9).map(lambda ids: TextSegment(tuple(ids)))
PICTURES = strategies.sampled_from([ImageSegment(*one) for one in (("a", 1), ("b", 6), ("c", 6), ("d", 11))])
PROMPTS = strategies.lists(TEXTS | PICTURES, min_size=1, max_size=6).map(joined)
LATER = strategies.none() | strategies.integers(0, 6)


class Conversations(RuleBasedStateMachine):
    @initialize(batch=strategies.integers(1, 8), joins_text=strategies.booleans())
    def start(self, batch: int, joins_text: bool) -> None:
        self.llm = FakeModel(batch, joins_text)
        self.cache = KvCache(self.llm, batch=batch)  # type: ignore[arg-type]

    @rule(prompt=PROMPTS, cancel=LATER)
    def ask(self, prompt: list[Segment], cancel: int | None) -> None:
        """A question, cancelled before its chunk number ``cancel`` if it has one."""
        before, computed = list(self.llm.held), self.llm.computed
        wanted = rows_of(prompt)
        kept = min(shared(before, wanted), len(wanted) - 1)
        if self.llm.joins_text and shared(before, wanted) == len(wanted) and isinstance(prompt[-1], TextSegment):
            kept = len(wanted) - len(prompt[-1])  # all that is read with the last position
        if not in_open_picture(self.cache.segments(), prompt, kept):
            kept = whole_pictures(prompt, kept)
        done, asked = [kept], iter(range(100))
        self.llm.context = max(self.llm.context, len(wanted))
        self.llm.asked_for.clear()
        try:
            found = self.cache.prefill(
                prompt,
                embeddings_of(prompt),
                on_progress=lambda now, total: done.append(now) if total == len(wanted) else done.clear(),
                cancelled=lambda: next(asked) == cancel,
            )
        except Cancelled:
            assert len(done) - 1 == cancel
            assert self.llm.held == wanted[: done[-1]]
            assert self.llm.asked_for == []
        else:
            assert found == kept
            assert self.llm.held == wanted
            assert self.llm.asked_for == [self.llm.latest] == [len(wanted) - 1]
            assert self.cache.segments() == prompt
        assert self.llm.computed - computed == done[-1] - kept
        assert all(0 < now - last <= self.llm.batch for last, now in pairwise(done))

    @rule(more=PROMPTS, cut=strategies.integers(0, 40), cancel=LATER)
    def ask_further(self, more: list[Segment], cut: int, cancel: int | None) -> None:
        """The conversation as it stands, or its first ``cut`` positions, and something new."""
        kept: list[Segment] = []
        for segment in self.cache.segments():
            if isinstance(segment, TextSegment):
                kept += [TextSegment(segment.tokens[:cut])] if cut > 0 else []
            elif isinstance(segment, OpenImage):
                kept += [segment.image] if cut >= segment.held else []
            elif cut >= len(segment):
                kept.append(segment)
            cut -= len(segment)
        self.ask(joined([*kept, *more]), cancel)

    @rule(tokens=strategies.lists(strategies.integers(0, 2), max_size=5))
    def answer(self, tokens: list[int]) -> None:
        if any(isinstance(segment, OpenImage) for segment in self.cache.segments()):
            return  # no answer follows what was not read
        for token in tokens:
            held = list(self.llm.held)
            self.llm.context = max(self.llm.context, len(held) + 1)
            self.cache.append(token)
            assert self.llm.held == [*held, (token,)]
            assert self.llm.latest == len(held)

    @rule(prompt=PROMPTS, failing_after=strategies.integers(0, 6))
    def fail_in_a_question(self, prompt: list[Segment], failing_after: int) -> None:
        self.llm.failing_after = failing_after
        try:
            self.ask(prompt, None)
        except NativeError:
            assert self.llm.held == []
        self.llm.failing_after = None

    @rule(
        prompt=PROMPTS,
        stopping_after=strategies.integers(0, 6),
        stopped_by=strategies.sampled_from([Cancelled, KeyboardInterrupt]),
    )
    def stop_in_a_chunk(self, prompt: list[Segment], stopping_after: int, stopped_by: type[BaseException]) -> None:
        """What was read of it is forgotten, what was read before is kept, and the same question goes on there."""
        before = list(self.llm.held)
        self.llm.context = max(self.llm.context, len(rows_of(prompt)))
        self.llm.stopping_after, self.llm.stopped_by = stopping_after, stopped_by
        done: list[int] = []
        try:
            self.cache.prefill(prompt, embeddings_of(prompt), on_progress=lambda now, _: done.append(now))
        except stopped_by:
            assert len(done) == stopping_after
            assert self.llm.held == rows_of(prompt)[: len(self.llm.held)]
            assert len(self.llm.held) == (done[-1] if done else len(self.llm.held))
            held, computed = len(self.llm.held), self.llm.computed
            assert held >= whole_pictures(prompt, min(shared(before, rows_of(prompt)), len(rows_of(prompt)) - 1))
            self.ask(prompt, None)
            assert self.llm.computed - computed == len(self.llm.held) - held
        self.llm.stopping_after = None

    @rule()
    def fail_in_an_answer(self) -> None:
        self.llm.failing_after = 0
        self.llm.context += 1
        with pytest.raises(NativeError):
            self.cache.append(1)
        assert self.llm.held == []

    @rule(
        before=strategies.lists(TEXTS | PICTURES, max_size=4),
        picture=PICTURES,
        good=strategies.integers(0, 10),
        error=strategies.sampled_from([RuntimeError, KeyboardInterrupt]),
    )
    def fail_in_an_encoder(
        self, before: list[Segment], picture: ImageSegment, good: int, error: type[BaseException]
    ) -> None:
        """Whole chunks in front of what fails stay, also the picture's; the next question goes on there."""
        before = joined([segment for segment in before if segment != picture])
        rows = embeddings_of(before) | {picture.digest: BrokenRows(picture, min(good, len(picture) - 1), error)}
        self.llm.context = max(self.llm.context, len(rows_of([*before, picture])))
        wanted, here = rows_of([*before, picture]), len(rows_of(before))
        begun = min(shared(self.llm.held, wanted), len(wanted) - 1)
        if not in_open_picture(self.cache.segments(), [*before, picture], begun) and self.llm.joins_text:
            begun = whole_pictures([*before, picture], begun)
        elif begun < here or not in_open_picture(self.cache.segments(), [*before, picture], begun):
            begun = here
        with pytest.raises(error):
            self.cache.prefill([*before, picture], rows)
        readable = here + min(good, len(picture) - 1)
        if self.llm.joins_text:
            ends = accumulate(sizes(len(wanted) - begun, self.llm.batch), initial=begun)
            assert self.llm.held == wanted[: max(end for end in ends if end <= max(readable, begun))]
        else:
            chunks = (readable - begun) // self.llm.batch
            assert self.llm.held == wanted[: begun + max(chunks, 0) * self.llm.batch]
        self.ask([*before, picture], None)

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        assert self.llm.held == []

    @invariant()
    def the_record_is_what_is_held(self) -> None:
        if not hasattr(self, "cache"):
            return
        assert rows_of(self.cache.segments()) == self.llm.held
        assert self.cache.segments() == joined(self.cache.segments())
        assert self.cache.positions == len(self.llm.held)


def test_text_is_read_in_the_chunks_of_the_pictures_around_it() -> None:
    """But for a short text at the end no chunk has few positions: their kernels are others."""
    llm = FakeModel(512, joins_text=True)
    llm.context = 2048
    prompt = [TextSegment((1,) * 14), ImageSegment("a", 1015), TextSegment((2,) * 16)]
    assert chunks(llm, prompt) == [512, 453, 64, 16]
    assert llm.held == rows_of(prompt)


@pytest.mark.parametrize(
    ("behind", "first", "again"),
    [
        (16, [512, 512, 510, 16], [16]),
        (63, [512, 512, 510, 63], [63]),
        (64, [512, 512, 510, 63, 1], [63, 1]),
        (65, [512, 512, 510, 64, 1], [1]),
        (300, [512, 512, 512, 297, 1], [1]),
    ],
)
def test_the_end_of_a_prompt_is_read_alike_whatever_is_cached(behind: int, first: list[int], again: list[int]) -> None:
    """By the kernels of few rows, or of many; and where all is there, the last position as it was read at first."""
    llm = FakeModel(512, joins_text=True)
    llm.context = 2048
    picture = [TextSegment((1,) * 14), ImageSegment("a", 1520)]
    prompt = [*picture, TextSegment((2,) * behind)]
    cache = KvCache(llm, batch=512)  # type: ignore[arg-type]
    assert chunks(llm, prompt, cache) == first
    assert chunks(llm, prompt, cache) == again
    chunks(llm, [*picture, TextSegment((3,))], cache)
    behind_picture = [64, 1] if behind == 65 else [299, 1] if behind == 300 else again
    assert chunks(llm, prompt, cache) == behind_picture


def chunks(llm: FakeModel, prompt: Sequence[Segment], cache: KvCache | None = None) -> list[int]:
    """Positions that are computed at once."""
    cache, done = cache or KvCache(llm, batch=512), []  # type: ignore[arg-type]
    kept = cache.prefill(prompt, embeddings_of(prompt), on_progress=lambda now, _: done.append(now))
    assert cache.segments() == list(prompt)
    return [now - last for last, now in pairwise([kept, *done])]


Conversations.TestCase.settings = settings(max_examples=150, stateful_step_count=12)
test_conversations = Conversations.TestCase
