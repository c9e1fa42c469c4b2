"""What two prompts have in common, position by position."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, strategies
from llava_edge.runtime.prompts.segments import ImageSegment, Segment, TextSegment, common_prefix

PICTURES = strategies.builds(ImageSegment, strategies.sampled_from("ab"), strategies.integers(1, 3))
TEXTS = strategies.lists(strategies.integers(0, 1), min_size=1, max_size=4)


@strategies.composite
def prompts(draw: strategies.DrawFn) -> list[Segment]:
    """As they are built: no two runs of tokens side by side."""
    segments: list[Segment] = []
    for picture in draw(strategies.lists(PICTURES | strategies.none(), max_size=5)):
        if picture is not None:
            segments.append(picture)
        elif not segments or isinstance(segments[-1], ImageSegment):
            segments.append(TextSegment(tuple(draw(TEXTS))))
    return segments


def positions(segments: Sequence[Segment]) -> list[tuple[object, ...]]:
    """What stands at each position. No two positions of a picture are the same."""
    found: list[tuple[object, ...]] = []
    for segment in segments:
        if isinstance(segment, TextSegment):
            found += [(token,) for token in segment.tokens]
        else:
            found += [(segment.digest, segment.positions, index) for index in range(segment.positions)]
    return found


@given(start=prompts(), one=prompts(), other=prompts())
def test_common_prefix(start: list[Segment], one: list[Segment], other: list[Segment]) -> None:
    if start and isinstance(start[-1], TextSegment):
        start = [*start, ImageSegment("c", 2)]
    cached, wanted = [*start, *one], [*start, *other]
    expected = 0
    for have, want in zip(positions(cached), positions(wanted), strict=False):
        if have != want:
            break
        expected += 1
    assert common_prefix(cached, wanted) == common_prefix(wanted, cached) == expected
    assert common_prefix(wanted, wanted) == len(positions(wanted))
