"""What ``benchmark accuracy`` found of recipes as a table of scores: a line a bundle, without and with its pictures."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from ...runtime.errors import DataError, listed, shown
from ...runtime.system.plain_files import open_plain
from .scores import MODEL, MOST_MODELS, PARAMETERS, TEXT

Kind = Literal["kl", "accuracy"]
COLUMNS: dict[Kind, str] = {"kl": "picture KL", "accuracy": "picture accuracy"}
_KEYS: dict[Kind, str] = {"kl": "kl_mean", "accuracy": "accuracy"}
LARGEST_FILE = 50_000_000
_COMPARED = ("questions", "pictures", "bootstrap")
"""What two files have alike where they are about the same questions."""


@dataclass(frozen=True)
class Recipe:
    """A bundle, and its score without the pictures and with them."""

    name: str
    text: float
    picture: float


def recipes(paths: Sequence[Path], kind: Kind = "kl") -> list[Recipe]:
    """The candidates of every file, in order; the same one in two files is one.

    The reference is left out: its KL is 0 by definition. Raises :class:`DataError` for files that are no output of
    ``benchmark accuracy``, that have no measurement without pictures, or that are not about the same thing.
    """
    found: dict[tuple[str, str, str], Recipe] = {}
    first: tuple[Path, object] | None = None
    for path in paths:
        read = _read(path)
        about = [read["reference"], *(read.get(key) for key in _COMPARED)]
        if first is not None and about != first[1]:
            _refuse(path, f"the reference and the questions of {first[0]}", "others", "measure all against the same")
        first = first or (path, about)
        for one in read["candidates"]:
            found.setdefault(
                (str(one["name"]), str(one["vision"]), str(one["llm"])),
                _recipe(path, one, kind, read.get("pictures") != 0),
            )
    if len(found) > MOST_MODELS:
        raise DataError(expected=f"at most {MOST_MODELS} bundles", got=str(len(found)), fix="give fewer files")
    return _told_apart(found)


def table(found: Sequence[Recipe], kind: Kind = "kl") -> str:
    """The CSV that ``benchmark regress`` reads. Parameters are left empty: recipes change none."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([MODEL, PARAMETERS, TEXT, COLUMNS[kind]])
    rows.writerows([one.name, "", repr(one.text), repr(one.picture)] for one in found)
    return text.getvalue()


def _told_apart(found: dict[tuple[str, str, str], Recipe]) -> list[Recipe]:
    """Two bundles of one name, in different folders, have their recipes behind it."""
    names = Counter(name.casefold() for name, _, _ in found)
    return [
        one if names[name.casefold()] == 1 else Recipe(f"{name} ({vision} + {llm})", one.text, one.picture)
        for (name, vision, llm), one in found.items()
    ]


def _refuse(path: Path, expected: str, got: str, fix: str) -> NoReturn:
    raise DataError(expected=f"{expected} in {path}", got=got, fix=fix)


def _read(path: Path) -> dict[str, Any]:
    what, fix = "what 'llava-edge benchmark accuracy --json' printed", "give its accuracy.json"
    try:
        with open_plain(path, stream=True) as file:
            raw = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(expected=f"{what} at {path}", got=reason, fix="check the path") from None
    if len(raw) > LARGEST_FILE:
        _refuse(path, what, f"more than {LARGEST_FILE / 1e6:g} MB", fix)
    try:
        read = json.loads(raw)
    except (ValueError, RecursionError):
        _refuse(path, what, "no JSON", fix)
    if not isinstance(read, dict) or not {"reference", "candidates"} <= set(read):
        _refuse(
            path, what, f"JSON of {listed(list(read)) or 'nothing'}" if isinstance(read, dict) else "other JSON", fix
        )
    candidates = read["candidates"]
    if not isinstance(candidates, list) or not all(_is_candidate(one) for one in candidates):
        _refuse(path, what, "other JSON", fix)
    return read


def _is_candidate(one: object) -> bool:
    return isinstance(one, dict) and all(isinstance(one.get(key), str) for key in ("name", "vision", "llm"))


def _recipe(path: Path, one: dict[str, Any], kind: Kind, pictures: bool) -> Recipe:
    name, key = shown(one["name"]), _KEYS[kind]
    text = one.get("text")
    if not isinstance(text, dict):
        again = "measure again with --text; answers that are kept are not asked again"
        fix = again if pictures else "its questions have no pictures to leave out: measure questions about pictures"
        _refuse(path, f"a measurement of {name} without pictures", "none", fix)
    values = list(_finite(text.get(key), one.get(key)))
    if len(values) < 2:
        fix = "no question was measured" if kind == "kl" else "the answers need questions that are scored"
        _refuse(path, f"{key} of {name} with and without pictures", "none", fix)
    return Recipe(one["name"], *values)


def _finite(*values: object) -> Iterator[float]:
    for one in values:
        if isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one):
            yield float(one)
