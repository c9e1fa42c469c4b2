"""One object of a request, read field by field; null counts as absent, unknown fields are left alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ..errors import RequestError, shown

UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_DURATION = re.compile(rf"-?(?:{_NUMBER}|(?:{_NUMBER}(?:ms|s|m|h))+)")
_PART = re.compile(rf"({_NUMBER})(ms|s|m|h|)")
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """``text`` with half characters, which JSON can spell and no tokenizer can read, replaced."""
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


class Fields:
    """The fields of ``values``, an object that stands at ``path`` in the request."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self.values = values
        self.path = path

    def where(self, name: str) -> str:
        """The parameter as errors name it."""
        return f"{self.path}.{name}" if self.path else name

    def get(self, name: str) -> Any:
        """The value as it is, None where absent."""
        return self.values.get(name)

    def refuse(self, name: str, expected: str, *, fix: str = "correct it", code: str = "invalid_value") -> NoReturn:
        """Raise the error of a value that is not what was expected."""
        param = self.where(name)
        raise RequestError(expected=f"{expected} as {param}", got=self._sent(name), fix=fix, code=code, param=param)

    def unsupported(self, name: str, why: str) -> NoReturn:
        """Raise the error of a parameter that has a meaning this server can't give it."""
        param = self.where(name)
        raise RequestError(
            expected=f"a request without {param}",
            got=self._sent(name),
            fix=why,
            code="unsupported_parameter",
            param=param,
        )

    def _sent(self, name: str) -> str:
        """What an error repeats of a value."""
        value = self.get(name)
        return "none" if value is None else shown(value)

    def text(self, name: str) -> str | None:
        """A string."""
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            self.refuse(name, "a text")
        return None if value is None else clean(value)

    def flag(self, name: str) -> bool:
        """True or false, false where absent."""
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, "true or false")
        return bool(value)

    def whole(self, name: str, bounds: tuple[float, float]) -> int | None:
        """A whole number within ``bounds``; 7.0 is one."""
        value = self.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not bounds[0] <= value <= bounds[1]:
            self.refuse(name, f"a whole number from {int(bounds[0])} to {int(bounds[1])}")
        return value

    def number(self, name: str, bounds: tuple[float, float]) -> float | None:
        """A number within ``bounds``."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not bounds[0] <= value <= bounds[1]:
            self.refuse(name, f"a number from {bounds[0]:.15g} to {bounds[1]:.15g}")
        return value

    def seconds(self, name: str) -> float | None:
        """Seconds: a number, or a text such as "5m"; below 0 means for ever."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(max(-1e9, min(value, 1e9)))
        if not isinstance(value, str) or len(value) > 32 or not _DURATION.fullmatch(value):
            self.refuse(name, 'seconds, or a time such as "5m"')
        parts = _PART.findall(value)
        return (-1.0 if value[0] == "-" else 1.0) * sum(float(number) * UNITS[unit] for number, unit in parts)

    def word(self, name: str, words: Sequence[str]) -> str | None:
        """One of ``words``."""
        value = self.get(name)
        if value is not None and value not in words:
            self.refuse(name, f"one of {', '.join(words)}")
        return None if value is None else str(value)

    def object(self, name: str) -> Fields | None:
        """An object within."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.refuse(name, "an object")
        return Fields(value, self.where(name))

    def values_of(self, name: str) -> list[Any] | None:
        """A list."""
        value = self.get(name)
        if value is not None and not isinstance(value, list):
            self.refuse(name, "a list")
        return value

    def objects(self, name: str) -> list[Fields]:
        """A list of objects; empty where absent."""
        found = []
        for index, value in enumerate(self.values_of(name) or []):
            if not isinstance(value, dict):
                Fields({f"{name}[{index}]": value}, self.path).refuse(f"{name}[{index}]", "an object")
            found.append(Fields(value, f"{self.where(name)}[{index}]"))
        return found
