"""The checks that options have in common: types, ranges, what an error repeats of a wrong value."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar, cast, get_args, get_origin

from .errors import OptionError

_Worked = TypeVar("_Worked")


def cached(work: Callable[[type[Any]], _Worked]) -> Callable[[type[Any]], _Worked]:
    """``functools.cache`` for what is worked out of a class, which mypy takes for unhashable."""
    return cast(Callable[[type[Any]], _Worked], functools.cache(cast(Any, work)))


def plain(value: Any, hint: Any) -> Any:
    """A number or truth value of numpy's as Python's, and a list as a tuple; anything else as it is."""
    if isinstance(value, list) and get_origin(hint) is tuple:
        return tuple(plain(one, get_args(hint)[0]) for one in value)
    if getattr(value, "shape", None) == () and hasattr(value, "item") and hasattr(value, "dtype"):
        return value.item()
    return value


def check_tuple(name: str, value: Any, kind: type[Any]) -> None:
    """A tuple of texts or numbers; a text alone is none, though it is made of texts."""
    kinds = str if kind is str else int | float
    if not isinstance(value, tuple) or any(isinstance(one, bool) or not isinstance(one, kinds) for one in value):
        what = "strings" if kind is str else "numbers"
        fix = f"write {name}=({repeated(value)},)" if isinstance(value, kinds) else "give a tuple"
        raise OptionError(expected=f"{name} as a tuple of {what}", got=repeated(value), fix=fix)


def repeated(value: Any) -> str:
    """A wrong value as Python writes it, at most 200 characters of it."""
    said = repr(value)
    return said if len(said) <= 200 else f"{said[:199]}…"


def check_number(name: str, value: Any, low: float, high: float, *, whole: bool = False, fix: str = "") -> None:
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        kind = f"{name} as a whole number" if whole and isinstance(value, float) else name
        bounds = f"{low:.15g} to {high if isinstance(high, int) else format(high, '.15g')}"  # no exponent
        raise OptionError(
            expected=f"{kind} from {bounds}",
            got=repeated(value),
            fix=(number and fix) or f"give {name} a value in that range",
        )


def folder_named(value: Any, name: str) -> str | bool | None:
    """A folder's path as text, True as it is, and None for what is empty or False. Raises OptionError."""
    if value is True or not value:
        return value or None
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(path, str) or "\0" in path:
        raise OptionError(
            expected=f"{name} as the path of a folder",
            got=repeated(value),
            fix="give one, or True for the user's own",
        )
    return path


DEFAULT_PORT = 50052
"""llama.cpp's own port for it."""


def parse_endpoint(endpoint: str) -> tuple[str, int]:
    """``HOST:PORT`` as its two parts. Raises :class:`OptionError`."""
    host, colon, port = endpoint.rpartition(":")
    if not host or not colon or not port.isdecimal() or not 0 < int(port) < 65536 or ":" in host:
        raise OptionError(
            expected="a worker as HOST:PORT (IPv4 address or name)",
            got=repeated(endpoint),
            fix=f"write it like 127.0.0.1:{DEFAULT_PORT}",
        )
    return host, int(port)
