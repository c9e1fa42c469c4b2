"""How options are declared, and the checks that they have in common: types, ranges, what errors repeat of a value."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from .errors import OptionError

_Worked = TypeVar("_Worked")


@dataclass(frozen=True)
class Option:
    """What is declared about an option beside its type and default.

    ``bounds`` are the least and the largest number, ``words`` the values that a word may have; a default of None is
    in range. Errors call it ``name``, or by the field's name. On the command line it is ``flag``, or the field's name
    again, and fields with the same flag are set together; ``metavar`` stands for its value in the help,
    ``show_default`` is False where the help says what the default means, ``or_file`` takes JSON text from a file too,
    ``in_python_only`` keeps it off there, and ``bare`` is its value where it is given without one. ``fix`` says what to
    do about a value out of range where more can be said than "choose another".
    """

    help: str
    bounds: tuple[float, float] | None = None
    words: tuple[str, ...] = ()
    name: str = ""
    flag: str = ""
    metavar: str | None = None
    show_default: bool = True
    or_file: bool = False
    in_python_only: bool = False
    bare: str = ""
    fix: str = ""


def cached(work: Callable[[type[Any]], _Worked]) -> Callable[[type[Any]], _Worked]:
    """``functools.cache`` for what is worked out of a class, which mypy takes for unhashable."""
    return cast(Callable[[type[Any]], _Worked], functools.cache(cast(Any, work)))


@cached
def declared(kind: type[Any]) -> Mapping[str, Option]:
    """What is declared about each field of an options class, in the order of the fields."""
    hints = get_type_hints(kind, include_extras=True).items()
    return MappingProxyType({name: hint.__metadata__[0] for name, hint in hints})


@cached
def types_of(kind: type[Any]) -> Mapping[str, Any]:
    """The type of each field of an options class; working it out takes a millisecond, and each command asks often."""
    return MappingProxyType(get_type_hints(kind))


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


def check_declared(options: Any) -> None:
    """Hold every field to its type and its range or words; numpy's numbers become Python's. Raises OptionError."""
    hints = types_of(type(options))
    for field, option in declared(type(options)).items():
        name, value = option.name or field, getattr(options, field)
        if (value is None and getattr(type(options), field) is None) or (value is False and option.bare):
            continue
        object.__setattr__(options, field, value := plain(value, hints[field]))
        if option.bounds is not None:
            check_number(name, value, *option.bounds, whole=hints[field] in (int, int | None), fix=option.fix)
        elif hints[field] in (bool, bool | None) and not isinstance(value, bool):
            raise OptionError(expected=f"{name} as True or False", got=repeated(value), fix="give one of them")
        elif get_origin(hints[field]) is tuple:
            check_tuple(name, value, get_args(hints[field])[0])
        elif option.words and (not isinstance(value, str) or value not in option.words):
            words = ", ".join(filter(None, option.words))
            raise OptionError(expected=f"{name} among {words}", got=repeated(value), fix="choose one of those")


_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")


MOST_PICTURE_TOKENS = 2**24
"""More than any picture has: a larger number is all of it too."""


def picture_share(value: Any) -> int | str | None:
    """``picture_tokens`` in one spelling: a number of positions from 2, a share such as "25%", or None for all.

    Raises OptionError.
    """
    value = plain(value, int)
    if isinstance(value, str):
        text = value.replace(" ", "")
        share = _SHARE.fullmatch(text)
        if share is not None and 0 < float(share[1]) <= 100:
            return f"{float(share[1]):.9g}%"
        value = int(text) if text.isascii() and text.isdecimal() and len(text) < 100 else value
    if value is None:
        return None
    if type(value) is int and value >= 2:
        return min(value, MOST_PICTURE_TOKENS)
    raise OptionError(
        expected="picture_tokens as a number of positions from 2, or a share above 0% and up to 100% (6 decimals)",
        got=repeated(value),
        fix="write it like 256 or 25%; 100% is all",
    )
