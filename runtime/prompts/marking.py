"""Which characters of a rendered prompt a user typed, so that only the template places control tokens.

The prompt is rendered as it is: that is what the model reads. It is rendered a second time with stand-ins in the
messages' text wherever a control token could begin; where both are otherwise equal, the stand-ins tell whose each
place is. A stand-in takes the place of one character, so that lengths, slices and lists in the template come out the
same. Where a template looks into the text (escapes it, replaces in it), a mark in front of the character is tried,
then stand-ins inside of whole control tokens alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence

PRIVATE = range(0xE000, 0xF8FF)
Render = Callable[[Callable[[str], str]], str]
"""Renders the conversation with every text of its messages changed by a function."""
Restored = Callable[[str], Iterator[tuple[str, bool]]]
"""Real text in pieces, each with whether it begins with a character that a user typed."""


def typed_places(rendered: str, render: Render, texts: Sequence[str], controls: Sequence[str]) -> frozenset[int] | None:
    """Places in ``rendered`` that a user typed and a control token could lie on; None where that can't be told.

    ``controls`` are the control tokens, ``texts`` the messages'.
    """
    used = set("".join(texts))
    openings = sorted({one[0] for one in controls})
    if not used & set(openings):
        return frozenset()
    free = (chr(code) for code in PRIVATE if chr(code) not in used and chr(code) not in rendered)
    stand_ins = {one: next(free) for one in openings}
    inner = {one: next(free) for one in sorted({token[len(token) // 2] for token in controls})}
    mark, whole = next(free), re.compile("|".join(map(re.escape, controls)), re.IGNORECASE)
    ways: tuple[tuple[Callable[[str], str], Restored], ...] = (
        (lambda text: "".join(stand_ins.get(one, one) for one in text), _without_stand_ins(stand_ins)),
        (lambda text: "".join(mark + one if one in stand_ins else one for one in text), _without_marks(mark)),
        (lambda text: whole.sub(lambda found: _broken(found[0], inner), text), _without_stand_ins(inner)),
    )
    for change, restored in ways:
        pieces = list(restored(render(change)))
        if "".join(piece for piece, _ in pieces) == rendered:
            starts = itertools.accumulate((len(piece) for piece, _ in pieces), initial=0)
            return frozenset(at for at, (_, typed) in zip(starts, pieces, strict=False) if typed)
    return None


def _broken(token: str, inner: dict[str, str]) -> str:
    """A token with a stand-in in its middle."""
    middle = len(token) // 2
    return token[:middle] + inner.get(token[middle], token[middle]) + token[middle + 1 :]


def _without_stand_ins(stand_ins: dict[str, str]) -> Restored:
    """A stand-in may also have become an escape in JSON."""
    real = {stand_in: one for one, stand_in in stand_ins.items()}
    real |= {f"\\u{ord(stand_in):04x}": one for stand_in, one in list(real.items())}
    found = re.compile("|".join(map(re.escape, real)))

    def restored(text: str) -> Iterator[tuple[str, bool]]:
        at = 0
        for one in found.finditer(text):
            yield text[at : one.start()], False
            yield real[one[0]], True
            at = one.end()
        yield text[at:], False

    return restored


def _without_marks(mark: str) -> Restored:
    def restored(text: str) -> Iterator[tuple[str, bool]]:
        first, *rest = text.split(mark)
        yield first, False
        yield from ((one, True) for one in rest)

    return restored
