"""``llava-edge rm``: models leave the store."""

from __future__ import annotations

from typing import Annotated

import typer


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of 'llava-edge list'.")],
) -> None:
    """Remove models that were pulled, and what no other model needs of them; where one is unknown, none.

    What a running program has open stays until that has ended.
    """
    from ...runtime.bundle.disk_space import size_text
    from ...store.pull import remove
    from ..terminal.progress import note

    freed = remove(*names, on_note=note)
    result = f"{size_text(freed)} free again" if freed else "nothing is free again: its files are still used"
    note(f"{', '.join(dict.fromkeys(names))}: removed, {result}")
