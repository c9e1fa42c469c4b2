"""A table of scores in CSV: ``model``, ``parameters`` (billions), a text score, and a column a picture benchmark.

What spreadsheets write is read as it is meant: a byte order mark, semicolons or tabs between cells (decimal commas too
then), a column of percentages. Whatever could mean two things is refused, with the line and the column it stands in.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from ...runtime.errors import DataError, OptionError, listed, shown
from ...runtime.system.plain_files import open_plain

MODEL, PARAMETERS, TEXT = "model", "parameters", "text"
LARGEST_FILE = 4_000_000
MOST_MODELS = 500
MOST_BENCHMARKS = 24
"""Panels that one figure has room for."""
LARGEST_NUMBER = 1e12
NOT_STATED = frozenset(("", "-", "–", "—"))
"""Cells without a score."""
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}

Column = tuple[float | None, ...]


@dataclass(frozen=True)
class Scores:
    """The table: one value a model in every column, None where none is stated. ``x`` names the column of ``text``."""

    models: tuple[str, ...]
    parameters: Column
    x: str
    text: Column
    benchmarks: dict[str, Column]


@dataclass(frozen=True)
class _Row:
    line: int
    cells: tuple[str, ...]


def read_scores(path: Path, *, x: str = TEXT) -> Scores:
    """Read the table at ``path``; ``x`` is the column that the others are held against.

    Raises :class:`DataError` for what is no such table, :class:`OptionError` for an ``x`` that it does not have.
    """
    content, delimiter = _content(path)
    rows = list(_rows(path, content, delimiter))
    if not rows:
        _refuse(path, "a line of column names, and a line a model", "an empty file")
    names = _names(path, rows[0])
    x_name = _found(names, x)
    if x_name is None or x_name == MODEL:
        columns = [one for one in names if one != MODEL]
        if x == TEXT:
            _refuse(path, f"a column {TEXT!r}", f"only {listed(names)}", "name it, or choose another with --x")
        raise OptionError(expected=f"a column of {path} for --x", got=repr(x), fix=f"choose among {listed(columns)}")
    wanted = [one for one in names if one not in (MODEL, PARAMETERS, x_name)]
    if not 0 < len(wanted) <= MOST_BENCHMARKS:
        what = f"from 1 to {MOST_BENCHMARKS} columns beside {MODEL}, {PARAMETERS} and {x_name}"
        _refuse(path, what, str(len(wanted)), "add a picture benchmark's scores" if not wanted else "split the table")
    models = _models(path, names, rows[1:])
    columns_of = {name: _column(path, names, rows[1:], name, delimiter) for name in names if name != MODEL}
    for row, size in zip(rows[1:], columns_of[PARAMETERS], strict=True):
        if size is not None and size <= 0:
            _refuse(path, f"parameters above 0 in line {row.line}", f"{size:g}", "state billions, or leave it empty")
    benchmarks = {name: columns_of[name] for name in wanted}
    return Scores(models, columns_of[PARAMETERS], x_name, columns_of[x_name], benchmarks)


def logarithmic(scores: Scores) -> Scores:
    """The table with log₁₀ of all scores, for what spans decades, as divergences do. Raises :class:`DataError`.

    A line's slope is then an exponent: at 1 the picture score grows as the text score does.
    """

    def of(column: Column, name: str) -> Column:
        for model, value in zip(scores.models, column, strict=True):
            if value is not None and value <= 0:
                got = f"{value:g} of {shown(model)}"
                raise DataError(expected=f"scores above 0 in {name!r} for --log", got=got, fix="leave out --log")
        return tuple(None if value is None else math.log10(value) for value in column)

    benchmarks = {f"log₁₀ {name}": of(column, name) for name, column in scores.benchmarks.items()}
    return replace(scores, x=f"log₁₀ {scores.x}", text=of(scores.text, scores.x), benchmarks=benchmarks)


def _refuse(path: Path, expected: str, got: str, fix: str = "correct the table") -> NoReturn:
    raise DataError(expected=f"{expected} in {path}", got=got, fix=fix)


def _content(path: Path) -> tuple[list[str], str]:
    """The lines of the file and what is between its cells."""
    try:
        with open_plain(path, stream=True) as file:
            raw = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(expected=f"a table of scores at {path}", got=reason, fix="check the path") from None
    if len(raw) > LARGEST_FILE:
        _refuse(path, f"at most {LARGEST_FILE / 1e6:g} MB of scores", "more", "give a table of scores alone")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        _refuse(path, "UTF-8 text", "other bytes", "save it as CSV in UTF-8")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines[0].casefold().startswith("sep="):  # what Excel is told about its delimiter
        lines[0] = ""
    # a remark leaves an empty line, so that the numbers of the lines stay those of the file
    lines = ["" if line.startswith("#") else line for line in lines]
    header = next((line for line in lines if line.strip()), "")
    return lines, max(_DELIMITERS, key=header.count)


def _rows(path: Path, lines: Sequence[str], delimiter: str) -> Iterator[_Row]:
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True)
    start, count = 1, 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            _refuse(path, f"CSV in line {reader.line_num}", shown(error))
        if cells is None:
            return
        line, start = start, reader.line_num + 1
        if any(cell.strip() for cell in cells):
            count += 1
            if count > MOST_MODELS + 1:
                _refuse(path, f"at most {MOST_MODELS} models", "more", "give a smaller table")
            yield _Row(line, tuple(cell.strip() for cell in cells))


def _names(path: Path, header: _Row) -> list[str]:
    """The columns' names, those that we know in small letters; a delimiter at the end of lines makes none."""
    cells = list(header.cells)
    while cells and not cells[-1]:
        cells.pop()
    names = [cell.casefold() if cell.casefold() in (MODEL, PARAMETERS, TEXT) else cell for cell in cells]
    for name in (MODEL, PARAMETERS):
        if name not in names:
            _refuse(path, f"a column {name!r}", f"only {listed(names)}", _MISSING[name])
    if any(not name for name in names):
        _refuse(path, "a name for every column", f"none for column {names.index('') + 1}")
    for name in names:
        if names.count(name) > 1:
            _refuse(path, "every column once", f"{shown(name)!r} {names.count(name)} times")
        if not name.isprintable():
            _refuse(path, "names of columns that can be shown", repr(shown(name)))
    return names


_MISSING = {
    MODEL: "name the columns in the first line, separated by commas",
    PARAMETERS: "add it, in billions; its cells may be empty",
}


def _found(names: Sequence[str], x: str) -> str | None:
    """The column that ``x`` means: as it is written, or the only one but for small and capital letters."""
    if x in names:
        return x
    alike = [one for one in names if one.casefold() == x.casefold()]
    return alike[0] if len(alike) == 1 else None


def _models(path: Path, names: Sequence[str], rows: Sequence[_Row]) -> tuple[str, ...]:
    if not rows:
        _refuse(path, "a line a model below the columns' names", "none")
    at, seen = names.index(MODEL), dict[str, int]()
    for row in rows:
        filled = [index for index, cell in enumerate(row.cells) if cell]
        if len(row.cells) < len(names) or filled[-1] >= len(names):
            _refuse(path, f"{len(names)} cells in line {row.line}", str(len(row.cells)), _CELLS)
        model = row.cells[at]
        if not model or not model.isprintable():
            _refuse(path, f"a model's name in line {row.line}", repr(shown(model)))
        if (first := seen.setdefault(model.casefold(), row.line)) != row.line:
            _refuse(path, "every model once", f"{shown(model)!r} in lines {first} and {row.line}")
    return tuple(row.cells[at] for row in rows)


_CELLS = "leave a cell empty where there is no score; a comma inside a cell needs quotes around it"


def _column(path: Path, names: Sequence[str], rows: Sequence[_Row], name: str, delimiter: str) -> Column:
    at = names.index(name)
    found: list[float | None] = []
    percent: tuple[bool, int] | None = None
    for row in rows:
        cell = row.cells[at].replace("−", "-").replace("\u00a0", " ")
        if cell in NOT_STATED:
            found.append(None)
            continue
        bare = cell.removesuffix("%").rstrip()
        if percent is not None and percent[0] != (bare != cell):
            expected = f"{shown(name)!r} with or without % throughout"
            _refuse(path, expected, f"both, in lines {percent[1]} and {row.line}", "write all scores alike")
        percent = (bare != cell), row.line
        found.append(_number(path, bare, delimiter, row.line, name))
    return tuple(found)


def _number(path: Path, cell: str, delimiter: str, line: int, name: str) -> float:
    comma = _DECIMAL_COMMA.fullmatch(cell)
    if comma and delimiter != ",":
        cell = cell.replace(",", ".")
    value = float(cell) if _NUMBER.fullmatch(cell) else math.nan
    if not abs(value) <= LARGEST_NUMBER:
        fix = "write numbers as 49.9, and leave the cell empty where there is none"
        _refuse(path, f"a number in line {line}, column {shown(name)!r},", repr(shown(cell)), fix)
    return value
