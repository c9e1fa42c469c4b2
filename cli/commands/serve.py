"""``llava-edge serve``: answer other programs on this machine over HTTP."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...runtime.errors import OptionError, needing_extra
from ...runtime.options import GenerationOptions, LoadOptions
from ..terminal import options as arguments

if TYPE_CHECKING:
    from ...serve.settings import Settings

HOST = "127.0.0.1"
DEMO = "demo"
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


@arguments.with_options
def serve(
    models: Annotated[
        list[Path] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="BUNDLE",
            help="Bundle folder, or name of 'list'; may repeat. The demo model without it.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; others than this machine need a token.")
    ] = HOST,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=0, max=65535, help="Port to listen at, 8080 without it; 0, a sidecar's own, takes a free one."
        ),
    ] = None,
    socket: Annotated[
        Path | None, typer.Option("--socket", metavar="PATH", help="Listen on a Unix socket instead.")
    ] = None,
    sidecar: Annotated[
        bool,
        typer.Option("--sidecar", help="Belong to the program that starts it: token and life on standard input."),
    ] = False,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="Read the token that clients need from here.")
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="Ask for no token; on this machine's address alone.")] = (
        False
    ),
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", metavar="HOST", help="Answer to this name too; may repeat.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option("--allow-origin", metavar="ORIGIN", help="Let pages from there ask; may repeat.")
    ] = None,
    queue: Annotated[int, typer.Option("--queue", min=0, max=1000, help="Requests that may wait for their turn.")] = 8,
    idle_unload: Annotated[
        str | None,
        typer.Option(
            "--idle-unload",
            metavar="TIME",
            help="Unload a model that nobody asks for so long, like 15m; 'never'. Several have 15m without it.",
        ),
    ] = None,
    detail: Annotated[
        str | None, typer.Option("--detail", metavar="high|low|auto", help="Override what clients ask of pictures.")
    ] = None,
    isolate: Annotated[
        str,
        typer.Option(
            "--isolate",
            metavar="engine|llm|off",
            help="What lives in a process of its own: a crash there is one failed request; off risks the server.",
        ),
    ] = "engine",
    *,
    sampling: GenerationOptions,
    loading: LoadOptions,
    no_cache: arguments.NoCacheOption = False,
) -> None:
    """Serve OpenAI's and Ollama's HTTP dialects. Sampling options are defaults for requests that say nothing.

    The token is read from --token-file or LLAVA_EDGE_TOKEN; without them one is made, and printed in the address.
    With --sidecar it is the first line of standard input, whatever those say.
    """
    with needing_extra("serve"):
        from ...serve.listening import forget, listen_at, listen_in
        from ...serve.models.local import LocalModel, cache_sizes, check_process, served_options
        from ...serve.models.registry import read_facts
        from ...serve.server import Server
        from ...serve.sidecar import choose_token, leash, standard_input
    from ..terminal.answers import remembered
    from ..terminal.progress import note

    if socket is not None and (port is not None or host != HOST):
        raise OptionError(
            expected="one place to listen at",
            got=f"--socket with {'--port' if port is not None else '--host'}",
            fix="leave one of them out",
        )
    _check_form(sampling)
    stdin = standard_input() if sidecar else None
    token = choose_token(file=token_file, none=no_token, sidecar=sidecar, stdin=stdin, warn=note)
    settings = _settings(
        host="localhost" if socket else host,
        token=token.value,
        allowed_hosts=tuple(allow_host or ()),
        allowed_origins=tuple(allow_origin or ()),
        detail=detail,
        picture_tokens=sampling.picture_tokens,
        idle_unload=_idle_seconds(idle_unload, several=len(models or ()) > 1),
        shutdown_endpoint=sidecar,
        queue=queue,
    )
    loading = arguments.with_cache(loading, no_cache)
    loading = served_options(dataclasses.replace(loading, isolate=isolate))  # type: ignore[arg-type]  # checked there
    check_process(loading)
    facts = read_facts(list(map(_folder, models or [Path(DEMO)])), context=loading.context, warn=note)
    listener = listen_in(socket) if socket else listen_at(host, _port(port, sidecar))
    settings = _listening(settings, 0 if socket else listener.getsockname()[1])
    if kept := remembered(loading).text:
        note(kept)
    if stdin is not None:
        leash(stdin, lambda: forget(socket))
    server = Server(
        settings,
        facts,
        lambda one, cancelled: LocalModel(one.path, loading, sampling, cancelled),
        on_ready=lambda: _announce(settings, socket, sidecar=sidecar, told=token.value if token.made else ""),
        log=note,
        cache_sizes=lambda: cache_sizes(loading),
    )
    try:
        server.run_on(listener)
    finally:
        forget(socket)


def _folder(model: Path) -> Path:
    """``model``; the bundle of this package where it is called so, as the list of models does, and nothing else is."""
    from ...runtime.bundle.bundle import demo_bundle
    from ...runtime.bundle.named import named_model

    return demo_bundle() if str(model) == DEMO and not model.exists() and named_model(DEMO) is None else model


def _settings(*, queue: int, detail: str | None, **others: object) -> Settings:
    from ...serve.settings import DETAILS, Limits, Settings

    chosen = next((one for one in DETAILS if one == detail), None)
    if detail is not None and chosen is None:
        raise OptionError(expected=f"--detail among {', '.join(DETAILS)}", got=repr(detail[:200]), fix="choose one")
    return Settings(limits=Limits(waiting=queue), detail=chosen, **others)  # type: ignore[arg-type]


def _check_form(sampling: GenerationOptions) -> None:
    """Refuse what no answer could be held to now, and not at the first question."""
    if sampling.form is not None:
        from ...runtime.language.constraint import check_form

        check_form(sampling.form)


def _listening(settings: Settings, port: int) -> Settings:
    return dataclasses.replace(settings, port=port)


def _port(port: int | None, sidecar: bool) -> int:
    return port if port is not None else 0 if sidecar else 8080


def _idle_seconds(text: str | None, *, several: bool) -> float | None:
    from ...serve.settings import parse_duration

    if text is None:
        return 900.0 if several else None
    return None if text == "never" else parse_duration(text)


def _announce(settings: Settings, socket: Path | None, *, sidecar: bool, told: str) -> None:
    """Say on stdout where the server is: one JSON line for a program, the page's address for a person."""
    from ...runtime import __version__
    from ...serve.settings import is_loopback
    from ...serve.sidecar import ready_line
    from ..terminal.progress import note

    host = ANYWHERE.get(settings.host, f"[{settings.host}]" if ":" in settings.host else settings.host)
    url = f"unix:{socket}" if socket else f"http://{host}:{settings.port}"
    if sidecar:
        print(ready_line(url, __version__), flush=True)
        return
    if socket:
        print(f"{url} token {told}" if told else url, flush=True)
    else:
        print(f"{url}/?token={told}" if told else f"{url}/", flush=True)
    if not is_loopback(settings.host):
        note(f"everybody who reaches {settings.host} and has the token can ask; nothing is encrypted (docs/serving.md)")
