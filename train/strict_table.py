"""TOML tables into frozen dataclasses, strictly: an unknown or missing key is an error that names it."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from ..runtime.errors import OptionError

Kind = TypeVar("Kind")


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables. Raises :class:`OptionError` where there is no such file or no TOML in it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(
            expected=f"a recipe at {path}", got=error.strerror or str(error), fix="check --config"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(expected=f"TOML in {path}", got=str(error), fix="correct the recipe") from None


def read_table(kind: type[Kind], raw: dict[str, Any], where: str) -> Kind:
    """Build a dataclass ``kind`` from a table; ``where`` is the path that errors name.

    Fields with a default may be left out. Raises :class:`OptionError`.
    """
    return typing.cast(Kind, _dataclass(kind, raw, where))


def _dataclass(kind: type[Any], raw: Any, where: str) -> Any:
    if not isinstance(raw, dict):
        _refuse("a table", raw, where)
    fields = {one.name: one for one in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    if unknown := sorted(set(raw) - set(fields)):
        _refuse(f"only the keys {', '.join(fields)}", ", ".join(unknown), where)
    required = [name for name, one in fields.items() if _required(one)]
    if missing := [name for name in required if name not in raw]:
        _refuse(f"the keys {', '.join(missing)}", "none", where)
    return kind(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in raw.items()})


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(kind: Any, raw: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(typing.cast("type[Any]", kind), raw, where)
    if origin is Literal:
        return raw if raw in arguments else _refuse(f"one of {', '.join(map(str, arguments))}", raw, where)
    if origin is types.UnionType:
        return _value(arguments[0], raw, where)
    if origin is tuple and isinstance(raw, list):
        return _tuple(arguments, raw, where)
    if origin is dict and isinstance(raw, dict):
        return {key: _value(arguments[1], value, f"{where}.{key}") for key, value in raw.items()}
    if kind is Any:
        return raw
    if kind is float and type(raw) in (int, float):
        return float(raw)
    if kind in (str, int, bool) and type(raw) is kind:
        return raw
    return _refuse(getattr(kind, "__name__", str(kind)), raw, where)


def _tuple(arguments: tuple[Any, ...], raw: list[Any], where: str) -> tuple[Any, ...]:
    if arguments[-1] is Ellipsis:
        return tuple(_value(arguments[0], one, f"{where}[{index}]") for index, one in enumerate(raw))
    if len(arguments) != len(raw):
        _refuse(f"{len(arguments)} values", raw, where)
    return tuple(_value(one, value, where) for one, value in zip(arguments, raw, strict=True))


def _refuse(expected: str, got: Any, where: str) -> NoReturn:
    raise OptionError(expected=f"{expected} at {where}", got=f"{str(got)[:80]!r}", fix="correct the recipe")
