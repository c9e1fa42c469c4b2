"""Rows of a data set published as parquet: from a local copy, or from a hub id that is downloaded once and cached."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...runtime.errors import DataError, first_line, needing_extra
from ...store.hub import HUB_ID, fetch_data

Row = dict[str, Any]
"""One row by column name; a picture is ``{"bytes": encoded picture, "path": name}`` or None."""

BATCH = 64
"""Rows that are Python objects at once."""


def read_rows(source: str, split: str, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of ``split``, pictures still encoded, one row group in memory at a time.

    ``source`` is a parquet file, a folder with ``SPLIT-*.parquet`` files at any depth (the layout
    of the hub), or a hub id. Raises :class:`DataError` where a column of ``columns`` is missing,
    and :class:`MissingExtraError`.
    """
    parquet = _parquet()
    for path in split_files(source, split):
        try:
            with parquet.ParquetFile(path) as file:
                _check_columns(source, file.schema_arrow.names, columns)
                for batch in file.iter_batches(batch_size=BATCH):
                    yield from batch.to_pylist()
        except DataError:
            raise
        except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own errors are kinds of these
            raise DataError(
                expected=f"parquet files of {source} that can be read",
                got=first_line(error),
                fix="get the files again",
            ) from error


def split_files(source: str, split: str) -> list[Path]:
    """The parquet files that hold ``split``, sorted. Raises :class:`DataError`."""
    path = Path(os.path.expanduser(source))
    if path.is_file():
        return [path]
    if not path.is_dir():
        return _download(source, split)
    return _some(sorted(path.rglob(f"{split}-*.parquet")), source, split)


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
    return files


def _check_columns(source: str, got: list[str], expected: Sequence[str]) -> None:
    if missing := [name for name in expected if name not in got]:
        raise DataError(
            expected=f"the columns {', '.join(expected)} in {source}",
            got=f"{', '.join(got)} (no {', '.join(missing)})",
            fix="check that the name before the colon fits the data set",
        )


def _parquet() -> Any:
    """Import ``pyarrow`` when data is read: the rest of the package works without it."""
    with needing_extra("benchmark"):
        from pyarrow import parquet
    return parquet
