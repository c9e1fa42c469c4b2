"""Bytes of a body to a JSON object, without trusting them."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from ...runtime.errors import first_line
from ..errors import RequestError, shown


def read_object(body: bytes, *, depth: int) -> dict[str, Any]:
    """The object in ``body``, nested at most ``depth`` levels. Raises RequestError."""
    try:
        text = body.decode("utf-8-sig")  # some systems put its mark in front
        value = json.loads(
            text, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole, object_pairs_hook=_once
        )
    except UnicodeDecodeError as error:
        raise _no_json(f"bytes that are not UTF-8 at offset {error.start}", "send it in UTF-8") from None
    except RecursionError:
        raise _too_deep(depth) from None
    except ValueError as error:
        if not body.strip():
            raise _no_json("an empty body") from None
        raise _no_json(first_line(error), "check its quotes, commas and brackets") from None
    if not isinstance(value, dict):
        raise _no_json(shown(value))
    if _deeper(value, depth):
        raise _too_deep(depth)
    return value


def _deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return any(isinstance(one, dict | list) for one in level)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; readers differ in which of two values of a name they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {shown(twice)} twice in one object")
    return found


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"a number too large, {shown(text)}")
    return number


def _whole(text: str) -> int:
    if len(text) > 400:
        raise ValueError(f"a number too large, {shown(text)}")
    return int(text)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which JSON does not have")


def _no_json(got: str, fix: str = "send one") -> RequestError:
    return RequestError(expected="a JSON object in the body", got=got, fix=fix, code="invalid_json")


def _too_deep(depth: int) -> RequestError:
    return RequestError(
        expected=f"JSON nested at most {depth} levels",
        got="deeper nesting",
        fix="send a flatter object",
        code="invalid_json",
    )
