"""Rows of a data set published as parquet: from a local copy, or from a hub id that is downloaded once and cached."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...runtime.errors import DataError, MissingExtraError

Row = dict[str, Any]
"""One row by column name; a picture is ``{"bytes": encoded picture, "path": name}`` or None."""

BATCH = 64
"""Rows that are Python objects at once."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


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
        except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own errors are kinds of these
            raise DataError(
                expected=f"parquet files of {source} that can be read",
                got=_first_line(error),
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
    """Fetch the split of a hub id. HF_ENDPOINT, HF_HOME and HF_TOKEN are honoured."""
    if not _HUB_ID.fullmatch(source):
        raise DataError(
            expected="a parquet file, a folder of them, or a hub id like owner/name",
            got=repr(source),
            fix="check the path",
        )
    from huggingface_hub import HfApi, snapshot_download

    try:
        listed = HfApi().list_repo_files(source, repo_type="dataset")
        names = [name for name in listed if re.fullmatch(rf"(.*/)?{split}-[^/]*\.parquet", name)]
        folder = Path(snapshot_download(source, repo_type="dataset", allow_patterns=names)) if names else None
    except Exception as error:  # huggingface_hub lets the errors of its HTTP library through, and changes it
        raise DataError(
            expected=f"the hub to serve the data set {source}",
            got=_first_line(error),
            fix="check the name, the network and HF_TOKEN, or give a local copy",
        ) from error
    return _some([folder / name for name in sorted(names)] if folder else [], source, split)


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
    try:
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            expected=f"the package {error.name}",
            got="no such package",
            fix="install the extra: pip install 'llava-edge[benchmark]'",
        ) from error
    return parquet


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
