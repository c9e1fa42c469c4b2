"""Rows of a data set published as parquet: from a local copy, or from a hub id that is downloaded once and cached."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...runtime.errors import DataError, first_line, needing_extra
from ...store.hub import HUB_ID, fetch_data

Row = dict[str, Any]
"""One row by column name; a picture is ``{"bytes": encoded picture, "path": name}`` or None."""


def read_rows(source: str, split: str, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of ``split``, pictures still encoded, one row group in memory at a time.

    ``source`` is a parquet file, a folder with ``SPLIT-*.parquet`` files at any depth (the layout
    of the hub), or a hub id. Raises :class:`DataError` where a column of ``columns`` is missing,
    and :class:`MissingExtraError`.
    """
    datasets = _datasets()
    files = split_files(source, split)
    try:
        with _torch_left_alone(datasets):
            # not load_dataset: that tells a server on every call which kind of data is being loaded
            table = datasets.IterableDataset.from_parquet([str(one) for one in files]).decode(False)
        _check_columns(source, list(table.features), columns)
        yield from table
    except DataError:
        raise
    except Exception as error:  # pyarrow raises its own for a damaged file, datasets wraps some of them
        raise DataError(
            expected=f"parquet files of {source} that can be read",
            got=first_line(error.__cause__ or error),
            fix="get the files again",
        ) from error


def split_files(source: str, split: str) -> list[Path]:
    """The parquet files that hold ``split``, sorted. Raises :class:`DataError`."""
    path = Path(source).expanduser()
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
    _datasets()
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


def _datasets() -> Any:
    """Import ``datasets`` when data is read: it takes a second, and the rest of the package works without it."""
    with needing_extra("benchmark"):
        import datasets
    return datasets


@contextmanager
def _torch_left_alone(datasets: Any) -> Iterator[None]:
    """Where torch is installed, datasets would load it to make its tables torch's too; that takes seconds."""
    available = datasets.config.TORCH_AVAILABLE
    datasets.config.TORCH_AVAILABLE = False
    try:
        yield
    finally:
        datasets.config.TORCH_AVAILABLE = available
