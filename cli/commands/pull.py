"""``llava-edge pull``: a bundle gets a name, and its files a place in the store."""

from __future__ import annotations

from typing import Annotated

import typer


def pull(
    what: Annotated[
        str,
        typer.Argument(
            metavar="HUB-ID|URL|FOLDER", help="owner/name or owner/name@revision, https://…/manifest.json, a folder."
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Its name; the repository's or folder's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the model as 'list --json' has it.")] = False,
) -> None:
    """Fetch a bundle into the store, and call it NAME: 'chat -m NAME' then finds it. Interrupted, it goes on.

    A name that is there gets the newer bundle of the same place.
    """
    from ...runtime.bundle.disk_space import size_text
    from ...store.catalogue import look_up
    from ...store.pull import pull as pull_model
    from ..terminal.progress import Bar, note
    from ..terminal.streams import say_json

    bar = Bar("fetching")
    try:
        model = pull_model(what, name=name, on_need=lambda need: note(str(need)), on_note=note, progress=bar)
    except KeyboardInterrupt:
        bar.close()
        note("what has arrived is kept; the same command goes on")
        raise
    found = look_up(model.name)
    note(f"{found.name}: {size_text(found.size)} from {found.source}; llava-edge chat -m {found.name}")
    if as_json:
        say_json(found.to_json())
