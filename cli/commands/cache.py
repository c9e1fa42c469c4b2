"""``llava-edge cache``: what earlier runs left for later ones."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
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
    others = _others(folder.root, cache)
    if as_json:
        shares = {"pictures": asdict(pictures), "states": asdict(states)}
        named = {"count": others.named, "bytes": others.named_bytes}
        say_json(
            {
                "folder": str(folder.root),
                **shares,
                "limit_bytes": limit,
                "named": named,
                "history_bytes": others.history_bytes,
            }
        )
        return
    say(visible(str(folder.root)))
    if why := folder.why_unusable():
        say(visible(f"not used: {why}"))
    for name, one, most in (("pictures", pictures, cache_pictures), ("conversations", states, cache_states)):
        say(f"{name:<14}{one.count:>6}{size_text(one.bytes):>14} of {size_text(most)}")
    say(f"{'named chats':<14}{others.named:>6}{size_text(others.named_bytes):>14}")
    if others.history_bytes:
        say(f"{'typed in chats':<20}{size_text(others.history_bytes):>14}")


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
    """Remove everything that is kept; answers are then slower, and the same. Named chats and what was typed stay."""
    from ...runtime.bundle.disk_space import size_text
    from ...runtime.durable.contents import clear as clear_all
    from ...runtime.system.storage import storage_error
    from ..terminal.streams import say

    folder = _usable(cache)
    if not folder.place.exists():
        say("nothing is kept")
        _say_what_stays(folder.root, cache)
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
    _say_what_stays(folder.root, cache)


@dataclass(frozen=True)
class _Others:
    """What people made themselves, which no clearing takes: chats kept under a name, and what was typed in chats."""

    folder: Path
    named: int
    named_bytes: int
    history: Path | None
    history_bytes: int


def _others(root: Path, cache: str | None) -> _Others:
    """What there is below ``root``; what was typed is in the user's cache alone."""
    from ..chat.history import history_file
    from ..chat.named import CONVERSATIONS, conversations_in

    history = None if cache else history_file()
    named = [_bytes(path) for path in conversations_in(root)]
    return _Others(root / CONVERSATIONS, len(named), sum(named), history, _bytes(history) if history else 0)


def _bytes(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _say_what_stays(root: Path, cache: str | None) -> None:
    from ..terminal.streams import say
    from ..terminal.visible import visible

    others = _others(root, cache)
    if others.named:
        many = amount(others.named, "chat with a name stays", "chats with a name stay")
        say(visible(f"{many} in {others.folder}: delete a file to forget one"))
    if others.history_bytes:
        say(visible(f"what was typed in chats stays in {others.history}: delete the file to forget it"))


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
