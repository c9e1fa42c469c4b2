"""Recipes are TOML, read strictly: an unknown or missing key is an error that names it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from ..runtime.bundle.strict_reading import StrictReader
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
    return StrictReader(OptionError, "correct the recipe", defaults=True).read(kind, raw, where)
