"""Rows of a data set published as parquet: from a local copy, or from a hub id that is downloaded once and cached."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...runtime.errors import DataError, first_line, needing_extra
from ...runtime.system.plain_files import NotPlainError, odd_kind
from ...store.hub import HUB_ID, fetch_data

Row = dict[str, Any]
"""One row by column name; a picture is ``{"bytes": encoded picture, "path": name}`` or None."""

_UNREADABLE = (OSError, ValueError, NotImplementedError)
"""pyarrow's own errors are kinds of these."""
BATCH = 64
"""Rows that are Python objects at once."""


def read_rows(source: str, split: str, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of ``split``, pictures still encoded, one row group in memory at a time.

    ``source`` is a parquet file, a folder with ``SPLIT-*.parquet`` files at any depth (the layout
    of the hub), or a hub id. Raises :class:`DataError` where no file has all of ``columns``, and
    :class:`MissingExtraError`. The rows of a file that lacks some come without them.
    """
    parquet, files = _parquet(), split_files(source, split)
    _check_columns(source, [_columns(parquet, path, source) for path in files], columns)
    for path in files:
        try:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=BATCH):
                    yield from batch.to_pylist()
        except _UNREADABLE as error:
            raise _damaged(source, path, error) from error


def _columns(parquet: Any, path: Path, source: str) -> list[str]:
    try:
        with parquet.ParquetFile(path) as file:
            return list(file.schema_arrow.names)
    except _UNREADABLE as error:
        raise _damaged(source, path, error) from error


def _damaged(source: str, path: Path, error: Exception) -> DataError:
    return DataError(
        expected=f"parquet files of {source} that can be read",
        got=f"{path.name}: {first_line(error)}",
        fix="get the files again",
    )


def split_files(source: str, split: str) -> list[Path]:
    """The parquet files that hold ``split``, sorted. Raises :class:`DataError`."""
    path = Path(os.path.expanduser(source))
    if path.is_file():
        return [path]
    if not path.is_dir():
        return _download(source, split)
    return _some(sorted(path.rglob(f"{split}-*.parquet")), source, split)  # none of macOS's "._" files


def _download(source: str, split: str) -> list[Path]:
    if not HUB_ID.fullmatch(source):
        raise DataError(
            expected="a parquet file, a folder of them, or a hub id like owner/name",
            got=repr(source),
            fix="check the path",
        )
    name = re.compile(rf"(.*/)?{split}-[^/]*\.parquet")
    return _some(fetch_data(source, lambda listed: name.fullmatch(listed) is not None), source, split)


def _some(files: list[Path], source: str, split: str) -> list[Path]:
    if not files:
        raise DataError(
            expected=f"files {split}-*.parquet in {source}", got="none", fix="get the data set in its parquet form"
        )
    if odd := next((path for path in files if odd_kind(path)), None):  # reading it would wait for ever
        raise _damaged(source, odd, NotPlainError(f"{odd_kind(odd)}, no file"))
    return files


def _check_columns(source: str, files: list[list[str]], expected: Sequence[str]) -> None:
    """Hold the columns of all files together: one whose columns are another set's is the wrong data set."""
    lacking = [[name for name in expected if name not in got] for got in files]
    if all(lacking):
        raise DataError(
            expected=f"the columns {', '.join(expected)} in {source}",
            got=f"{', '.join(files[0])} (no {', '.join(lacking[0])})",
            fix="check that the name before the colon fits the data set",
        )


def _parquet() -> Any:
    """Import ``pyarrow`` when data is read: the rest of the package works without it."""
    with needing_extra("benchmark"):
        from pyarrow import parquet
    return parquet
