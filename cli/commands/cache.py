"""``llava-edge cache``: what earlier runs left for later ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ...runtime.errors import StorageError, amount, listed
from ...runtime.options import LoadOptions
from ..terminal import options as arguments

if TYPE_CHECKING:
    from ...runtime.durable.folder import CacheFolder

app = typer.Typer(
    help="Pictures and conversations that are kept for later runs.", no_args_is_help=True, rich_markup_mode=None
)
CacheOption = Annotated[
    str | None, typer.Option("--cache", metavar="DIR", help="The folder; the user's cache without it.")
]
NAMED = 5
"""Bad entries that an error names."""


def show(
    cache: CacheOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    cache_pictures: Annotated[int, arguments.option(LoadOptions, "cache_pictures")] = LoadOptions.cache_pictures,
    cache_states: Annotated[int, arguments.option(LoadOptions, "cache_states")] = LoadOptions.cache_states,
) -> None:
    """Show how much is kept, and where."""
    from ...runtime.bundle.disk_space import size_text
    from ...runtime.durable.contents import share
    from ..terminal.streams import say, say_json
    from ..terminal.visible import visible

    folder = _folder(LoadOptions(cache=cache or True, cache_pictures=cache_pictures, cache_states=cache_states))
    pictures, states = share(folder, "pictures"), share(folder, "states")
    limit = cache_pictures + cache_states
    if as_json:
        shares = {"pictures": asdict(pictures), "states": asdict(states)}
        say_json({"folder": str(folder.root), **shares, "limit_bytes": limit})
        return
    say(visible(str(folder.root)))
    if why := folder.why_unusable():
        say(visible(f"not used: {why}"))
    for name, one, most in (("pictures", pictures, cache_pictures), ("conversations", states, cache_states)):
        say(f"{name:<14}{one.count:>6}{size_text(one.bytes):>14} of {size_text(most)}")


def verify(cache: CacheOption = None) -> None:
    """Read everything that is kept and check its hashes; exit status 1 where one is bad."""
    from ...runtime.durable.contents import check_all
    from ..terminal.streams import say
    from ..terminal.visible import visible

    folder = _usable(cache)
    found = dict(check_all(folder))
    bad = [path for path, why in found.items() if why]
    for path in bad:
        say(visible(f"{path}: {found[path]}"))
    if bad:
        named = listed([path.name for path in bad[:NAMED]]) + (", …" if bad[NAMED:] else "")
        raise StorageError(
            expected=f"{len(found)} entries with their sizes and hashes in {folder.root}",
            got=f"{len(bad)} bad: {named}",
            fix="'llava-edge cache clear' removes all; a bad one is never used, and removed where it would be",
        )
    say(f"{amount(len(found), 'entry has its size and hash', 'entries have their sizes and hashes')}")


def clear(cache: CacheOption = None) -> None:
    """Remove everything that is kept; answers are then slower, and the same."""
    from ...runtime.bundle.disk_space import size_text
    from ...runtime.durable.contents import clear as clear_all
    from ...runtime.system.storage import storage_error
    from ..terminal.streams import say

    folder = _usable(cache)
    if not folder.place.exists():
        say("nothing is kept")
        return
    try:
        went, all_of_it = clear_all(folder)
    except OSError as error:
        raise storage_error(error, folder.place) from error
    if not all_of_it:
        raise StorageError(
            expected=f"nothing left in {folder.place}",
            got="entries that stayed",
            fix="another process writes there; try again",
        )
    say(f"{amount(went.count, 'entry', 'entries')} removed, {size_text(went.bytes)}")


def _folder(options: LoadOptions) -> CacheFolder:
    from ...runtime.durable.durable import cache_root
    from ...runtime.durable.folder import CacheFolder, Limits

    return CacheFolder(cache_root(options.cache or True), Limits.of(options))


def _usable(cache: str | None) -> CacheFolder:
    """The folder. Raises StorageError where it can't be one."""
    folder = _folder(LoadOptions(cache=cache or True))
    if why := folder.why_unusable():
        raise StorageError(expected=f"a cache of this user's in {folder.root}", got=why, fix="give another --cache")
    return folder


arguments.register(app, "show", show)
arguments.register(app, "verify", verify)
arguments.register(app, "clear", clear)
