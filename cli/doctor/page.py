"""The facts as one page of text, to read or to paste into a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..terminal.visible import visible

_BYTES = ("total", "available", "free", "bytes")


def page(facts: Mapping[str, Any], advice: Sequence[str]) -> str:
    """A section a fact, what is wrong or slow last."""
    lines: list[str] = []
    for name, value in facts.items():
        lines += [name, *(f"  {line}" for line in _lines(value)), ""]
    lines += ["what is slow or wrong", *(f"  - {visible(one)}" for one in advice)] if advice else ["all is well"]
    return "\n".join(lines)


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        width = max(len(name) for name in value)
        for name, one in value.items():
            yield f"{visible(str(name)):<{width}}  {_words(one, name)}"
    elif isinstance(value, list) and value:
        yield from (_words(one) for one in value)
    else:
        yield _words(value)


def _words(value: Any, name: str = "") -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        if all(isinstance(one, bool) for one in value.values()):
            return " ".join(name for name, there in value.items() if there) or "none"
        return ", ".join(f"{inner} {_words(one, inner)}" for inner, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ("; " if any(isinstance(one, Mapping) for one in value) else " ").join(map(_words, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if name in _BYTES and isinstance(value, int):
        return f"{value / 2**30:.2f} GiB"
    return visible(str(value))
