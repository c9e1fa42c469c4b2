"""Bytes of a body to a JSON object, without trusting them."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ...runtime.errors import first_line
from ..errors import RequestError, shown


def read_object(body: bytes, *, depth: int) -> dict[str, Any]:
    """The object in ``body``, nested at most ``depth`` levels. Raises RequestError."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise _no_json(f"bytes that are not UTF-8 at offset {error.start}") from None
    except RecursionError:
        raise _too_deep(depth) from None
    except ValueError as error:
        raise _no_json(first_line(error) if body.strip() else "an empty body") from None
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


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which JSON does not have")


def _no_json(got: str) -> RequestError:
    return RequestError(expected="a JSON object in the body", got=got, fix="send one", code="invalid_json")


def _too_deep(depth: int) -> RequestError:
    return RequestError(
        expected=f"JSON nested at most {depth} levels",
        got="deeper nesting",
        fix="send a flatter object",
        code="invalid_json",
    )
