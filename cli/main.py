"""The ``llava-edge`` program: wires the commands and turns errors into one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.main

from ..runtime.errors import OURS, LlavaEdgeError
from ..runtime.freezing import freeze_support
from .commands import (
    ask,
    benchmark,
    chat,
    doctor,
    export,
    optimize,
    plan,
    quantize,
    serve,
    show,
    tiles,
    train,
    verify,
    worker,
)
from .terminal import failure, streams
from .terminal.configuration import defaults
from .terminal.options import register
from .terminal.progress import clear_bars

_USAGE_ERRORS: type[Exception] = next(one for one in typer.BadParameter.__mro__ if one.__name__ == "ClickException")
"""click's base of usage errors, wherever this typer has it: newer releases carry click inside."""

app = typer.Typer(
    name="llava-edge",
    help="LLaVA-NeXT on this machine: talk about pictures, export and shrink checkpoints.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
register(app, "chat", chat.chat)
register(app, "ask", ask.ask, cls=ask.Ask)
register(app, "tiles", tiles.tiles)
register(app, "export", export.export)
register(app, "quantize", quantize.quantize)
register(app, "optimize", optimize.optimize)
register(app, "show", show.show)
register(app, "verify", verify.verify)
register(app, "train", train.train)
register(app, "plan", plan.plan)
register(app, "serve", serve.serve)
register(app, "worker", worker.worker)
register(app, "doctor", doctor.doctor)
app.add_typer(benchmark.app, name="benchmark")


def _show_version(wanted: bool) -> None:
    if wanted:
        from ..runtime import __version__

        streams.say(f"llava-edge {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """LLaVA-NeXT on this machine: talk about pictures, export and shrink checkpoints."""


def main() -> None:
    """Run a command. What a user can mend is one line on stderr; the exit status says what kind of thing it was."""
    freeze_support()
    streams.prepare()
    status = run(sys.argv[1:])
    clear_bars()
    sys.exit(status)


def run(words: Sequence[str]) -> int:
    """Run the command that ``words`` are, and return the exit status: 0, or those of :mod:`.terminal.failure`."""
    as_json = failure.asks_for(words, "--json", "--json-stream")
    try:
        return _run(words)
    except LlavaEdgeError as error:
        return failure.report(error, as_json=as_json)
    except _USAGE_ERRORS as error:
        return failure.report(failure.usage_error(error), as_json=as_json)
    except (typer.Abort, KeyboardInterrupt):
        return failure.INTERRUPTED
    except BrokenPipeError:
        streams.abandon_stdout()  # the reader has gone; Python would complain about the unflushed rest
        return failure.BROKEN_PIPE
    except ImportError as error:
        if (error.name or "").partition(".")[0] == OURS:
            raise  # a fault of ours
        return failure.report(failure.import_error(error), as_json=as_json)
    except (OSError, MemoryError) as error:
        status = failure.report(failure.system_error(error), as_json=as_json)
        streams.abandon_stdout()
        return status


def _run(words: Sequence[str]) -> int:
    command: Any = typer.main.get_command(app)
    if "_LLAVA_EDGE_COMPLETE" in os.environ:
        command.main(prog_name="llava-edge", standalone_mode=False)  # a shell that completes ends in there
    status = 0
    try:  # not click's own main, which turns a broken pipe into status 1
        with command.make_context("llava-edge", list(words), obj=app, default_map=defaults(app, words)) as context:
            command.invoke(context)
    except typer.Exit as ended:
        status = ended.exit_code
    except _USAGE_ERRORS as error:
        if type(error).__name__ != "NoArgsIsHelpError":
            raise
        streams.say(str(getattr(error, "message", error)))  # a bare ``llava-edge`` is no error
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    main()
