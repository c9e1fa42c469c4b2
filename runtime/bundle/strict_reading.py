"""Plain tables, as JSON and TOML give them, into frozen dataclasses, strictly.

An unknown or missing key and a value of another type are errors that name the place. Field types
may be ``str``, ``int``, ``float``, ``bool``, ``Any``, ``Literal``, tuples, dictionaries with string
keys, dataclasses, and any of these or ``None``.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar

from ..errors import LlavaEdgeError, listed, shown

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class StrictReader:
    """How a kind of file is read: its ``error`` and what ``fix`` it suggests.

    ``defaults`` lets keys be left out whose field has a default; otherwise only those that default to None.
    """

    error: type[LlavaEdgeError]
    fix: str
    defaults: bool

    def read(self, kind: type[Kind], raw: Any, where: str) -> Kind:
        """Build a dataclass ``kind`` from a table; ``where`` is the path that errors name.

        Raises ``error``.
        """
        return typing.cast(Kind, self._dataclass(kind, raw, where))

    def _dataclass(self, kind: type[Any], raw: Any, where: str) -> Any:
        if not isinstance(raw, dict):
            self._refuse("an object", raw, where)
        fields = {one.name: one for one in dataclasses.fields(kind)}
        hints = typing.get_type_hints(kind)
        if unknown := sorted(set(raw) - set(fields)):
            self._refuse(f"only the keys {', '.join(fields)}", listed(unknown), where)
        required = [name for name, one in fields.items() if self._is_required(one)]
        if missing := [name for name in required if name not in raw]:
            self._refuse(f"the keys {', '.join(missing)}", "none", where)
        return kind(**{name: self._value(hints[name], value, f"{where}.{name}") for name, value in raw.items()})

    def _is_required(self, field: dataclasses.Field[Any]) -> bool:
        if self.defaults:
            return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        return field.default is not None

    def _value(self, kind: Any, raw: Any, where: str) -> Any:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if dataclasses.is_dataclass(kind):
            return self._dataclass(typing.cast("type[Any]", kind), raw, where)
        if origin is Literal:
            return raw if raw in arguments else self._refuse(f"one of {', '.join(map(str, arguments))}", raw, where)
        if origin is types.UnionType:
            return None if raw is None else self._value(arguments[0], raw, where)
        if origin is tuple and isinstance(raw, list):
            return self._tuple(arguments, raw, where)
        if origin is dict and isinstance(raw, dict):
            return {key: self._value(arguments[1], value, f"{where}.{key}") for key, value in raw.items()}
        if kind is Any:
            return raw
        if kind is float and type(raw) in (int, float):
            return self._finite(raw, where)
        if kind in (str, int, bool) and type(raw) is kind:
            return raw
        return self._refuse(getattr(kind, "__name__", str(kind)), raw, where)

    def _finite(self, raw: float, where: str) -> float:
        if not abs(raw) < sys.float_info.max:  # also of a whole number too large for a float; not of NaN
            self._refuse("a finite number", raw, where)
        return float(raw)

    def _tuple(self, arguments: tuple[Any, ...], raw: list[Any], where: str) -> tuple[Any, ...]:
        if arguments[-1] is Ellipsis:
            return tuple(self._value(arguments[0], one, f"{where}[{index}]") for index, one in enumerate(raw))
        if len(arguments) != len(raw):
            self._refuse(f"{len(arguments)} values", raw, where)
        return tuple(
            self._value(kind, one, f"{where}[{index}]")
            for index, (kind, one) in enumerate(zip(arguments, raw, strict=True))
        )

    def _refuse(self, expected: str, got: Any, where: str) -> NoReturn:
        raise self.error(expected=f"{expected} at {where}", got=repr(shown(got)[:80]), fix=self.fix)
