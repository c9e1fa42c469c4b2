"""A prompt as a value: positions, ids as the reference spells them, tokens behind it, rows as they come."""

from __future__ import annotations

import numpy as np
import pytest
from llava_edge.runtime.prompts.prompt import Prompt
from llava_edge.runtime.prompts.segments import ImageSegment, TextSegment

TEXT, IMAGE = TextSegment((5, 6)), ImageSegment("a", 3)


def test_ids_have_the_image_token_at_every_position_of_a_picture() -> None:
    prompt = Prompt((TEXT, IMAGE, TextSegment((7,))))
    assert prompt.ids(-1) == [5, 6, -1, -1, -1, 7]
    assert len(prompt) == 6


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ((IMAGE, TEXT), (IMAGE, TextSegment((5, 6, 8, 9)))),  # one run of tokens: the cache matches runs
        ((TEXT, IMAGE), (TEXT, IMAGE, TextSegment((8, 9)))),
    ],
)
def test_tokens_behind_a_prompt(segments: tuple[object, ...], expected: tuple[object, ...]) -> None:
    prompt = Prompt(segments, {"a": np.zeros((3, 2), np.float32)})  # type: ignore[arg-type]
    longer = prompt.followed_by((8, 9))
    assert longer.segments == expected
    assert longer.rows is prompt.rows
    assert prompt.segments == segments


def test_rows_are_added_and_replaced() -> None:
    first, second = np.zeros((3, 2), np.float32), np.ones((3, 2), np.float32)
    prompt = Prompt((IMAGE,), {"a": first})
    more = prompt.with_rows({"b": first, "a": second})
    assert set(more.rows) == {"a", "b"}
    assert more.rows["a"] is second
    assert prompt.rows["a"] is first
