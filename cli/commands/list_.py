"""``llava-edge list``: the models of the store."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ...store.catalogue import Listed

_HEAD = ("name", "size", "llm", "vision", "pulled", "source")


def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """List the models that were pulled, by the names that -m takes."""
    from ...runtime.bundle.named import models_folder
    from ...store.catalogue import catalogue
    from ..terminal.progress import note
    from ..terminal.streams import say, say_json
    from ..terminal.visible import visible

    found = catalogue()
    if as_json:
        say_json([one.to_json() for one in found])
        return
    if not found:
        note(f"no models in {models_folder()}; 'llava-edge pull' fetches one")
        return
    rows = [_HEAD, *map(_row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        say(visible("  ".join(cells).rstrip()))


def _row(one: Listed) -> tuple[str, ...]:
    from ...runtime.bundle.disk_space import size_text

    if one.fault:
        return (one.name, "-", "-", "-", "-", one.fault)
    day = datetime.datetime.fromtimestamp(one.modified).strftime("%Y-%m-%d")
    return (one.name, size_text(one.size), one.llm, one.vision, day, one.source)
