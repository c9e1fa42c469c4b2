"""``llava-edge chat``: talk about pictures in a terminal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ...runtime.errors import LlavaEdgeError
from ...runtime.options import GenerationOptions, LoadOptions
from ..terminal import options as arguments
from ..terminal.streams import was_closed


@arguments.with_options
def chat(
    images: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Pictures to begin with.")] = None,
    model: arguments.ModelOption = None,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Keep what is typed for the arrow keys of later chats.")
    ] = True,
    *,
    sampling: GenerationOptions,
    system: arguments.SystemOption = None,
    loading: LoadOptions,
    no_cache: arguments.NoCacheOption = False,
    stats: arguments.StatsOption = False,
) -> None:
    """Talk about pictures. Ctrl-C ends an answer and keeps the conversation; twice leaves."""
    from ...runtime.model import load
    from ..chat.completion import completions
    from ..chat.history import History, history_file
    from ..chat.lines import Lines
    from ..chat.session import Session
    from ..terminal.answers import remembered
    from ..terminal.progress import Bar, note

    _check_streams()
    loading = arguments.with_cache(loading, no_cache)
    if kept := remembered(loading)[0]:
        note(kept)
    with load(model, on_load=Bar("loading").share, **vars(loading)) as loaded:
        if stats:
            note(loaded.placement)
            note(loaded.provider)
        session = Session(loaded, system, sampling)
        session.add_images(list(images or []))
        session.run(Lines(History(history_file() if history and sys.stdin.isatty() else None), completions))


def _check_streams() -> None:
    """Say before a model is loaded that nobody can talk with it."""
    for name, stream in (("stdin", "standard input"), ("stdout", "standard output")):
        if was_closed(name):
            raise LlavaEdgeError(
                expected="a terminal or a pipe to talk through", got=f"a closed {stream}", fix=f"leave {stream} open"
            )
