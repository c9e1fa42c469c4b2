"""``llava-edge chat``: talk about pictures in a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ...runtime.errors import LlavaEdgeError
from ...runtime.options import GenerationOptions, LoadOptions
from ..terminal import options as arguments
from ..terminal.streams import was_closed

if TYPE_CHECKING:
    from ..chat.named import NamedConversation


@arguments.with_options
def chat(
    images: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Pictures to begin with.")] = None,
    model: arguments.ModelOption = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Keep the conversation under a name, and go on with it."),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Keep what is typed for the arrow keys of later chats.")
    ] = True,
    *,
    sampling: GenerationOptions,
    system: arguments.SystemOption = None,
    loading: LoadOptions,
    no_cache: arguments.NoCacheOption = False,
    verbose: arguments.VerboseOption = False,
) -> None:
    """Talk about pictures. Ctrl-C ends an answer and keeps the conversation; twice leaves."""
    from ...runtime.model import load
    from ..chat.completion import completions
    from ..chat.history import History, history_file
    from ..chat.lines import Lines
    from ..chat.session import Session
    from ..terminal.answers import placed, remembered
    from ..terminal.progress import Bar, note
    from ..terminal.question import check_pictures
    from ..terminal.visible import visible

    _check_streams()
    check_pictures(images or ())
    if name is not None and no_cache:
        note(f"the conversation is kept as {visible(name)} all the same, as --name says; no_cache holds for the rest")
    place, loading = loading.cache or True, arguments.with_cache(loading, no_cache)
    with _named(name, place) as named, load(model, on_load=Bar("loading").share, **vars(loading)) as loaded:
        for line in placed(loaded) if verbose else ():
            note(line)
        session = Session(loaded, system, sampling, named, verbose=verbose)
        lines = Lines(History(history_file() if history and sys.stdin.isatty() else None), completions)
        session.begin(lines, list(images or []))
        if kept := remembered(loading).text:
            note(kept)
        session.run(lines)


@contextmanager
def _named(name: str | None, place: str | os.PathLike[str] | bool) -> Iterator[NamedConversation | None]:
    """The conversation of a name, which lies beside the cache of ``place`` also where nothing is kept there."""
    if name is None:
        yield None
        return
    from ...runtime.durable.durable import cache_root
    from ...runtime.system.storage import storage_error
    from ..chat.named import NamedConversation

    root = cache_root(place)
    try:
        named = NamedConversation(root, name)
    except OSError as error:
        if isinstance(error, LlavaEdgeError):
            raise
        raise storage_error(error, root) from error
    with closing(named):
        yield named


def _check_streams() -> None:
    """Say before a model is loaded that nobody can talk with it."""
    for name, stream in (("stdin", "standard input"), ("stdout", "standard output")):
        if was_closed(name):
            raise LlavaEdgeError(
                expected="a terminal or a pipe to talk through", got=f"a closed {stream}", fix=f"leave {stream} open"
            )
