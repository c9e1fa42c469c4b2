"""The ``llava-edge`` program: wires the commands and turns errors into one line."""

from __future__ import annotations

from .start import hear_interrupts, leave_at_interrupt

if __name__ == "__main__":  # python -m llava_edge.cli.main
    leave_at_interrupt()

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
    cache,
    chat,
    doctor,
    export,
    import_,
    list_,
    optimize,
    plan,
    pull,
    quantize,
    rm,
    serve,
    show,
    tiles,
    train,
    verify,
    worker,
)
from .configuration.reading import defaults, set_where, unknown_variables, wants_json
from .terminal import failure, streams
from .terminal.options import register, watch
from .terminal.progress import clear_bars, note

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
register(app, "import", import_.import_pair)
register(app, "quantize", quantize.quantize)
register(app, "optimize", optimize.optimize)
register(app, "show", show.show)
register(app, "verify", verify.verify)
register(app, "pull", pull.pull)
register(app, "list", list_.list_models)
register(app, "rm", rm.rm)
register(app, "train", train.train)
register(app, "plan", plan.plan)
register(app, "serve", serve.serve)
register(app, "worker", worker.worker)
register(app, "doctor", doctor.doctor)
app.add_typer(benchmark.app, name="benchmark")
app.add_typer(cache.app, name="cache")


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
    armed = False
    try:
        armed = hear_interrupts()
        streams.prepare()
        status = run(sys.argv[1:])
        clear_bars()
    except KeyboardInterrupt:  # before or behind what hears it in a command
        status = failure.INTERRUPTED
    if armed:
        leave_at_interrupt()
    sys.exit(status)


def run(words: Sequence[str]) -> int:
    """Run the command that ``words`` are, and return the exit status: 0, or those of :mod:`.terminal.failure`."""
    try:
        return _run(words)
    except LlavaEdgeError as error:
        if where := set_where(app, words, error):
            error.fix += f" (it is {where})"
        return _failed(error, words)
    except _USAGE_ERRORS as error:
        return _failed(failure.usage_error(error, _command(words)), words)
    except (typer.Abort, KeyboardInterrupt):
        return failure.INTERRUPTED
    except BrokenPipeError:
        streams.abandon_stdout()  # the reader has gone; Python would complain about the unflushed rest
        return failure.BROKEN_PIPE
    except RuntimeError as error:
        if "home directory" not in str(error):  # what pathlib says to a user who has none
            raise
        return _failed(failure.homeless(), words)
    except ImportError as error:
        if (error.name or "").partition(".")[0] == OURS:
            raise  # a fault of ours
        return _failed(failure.import_error(error), words)
    except (OSError, MemoryError) as error:
        status = _failed(failure.system_error(error), words)
        streams.abandon_stdout()
        return status


def _command(words: Sequence[str]) -> str:
    """The command that ``words`` begin with, as far as they name one."""
    group, found = app, "llava-edge"
    for word in words:
        groups = {one.name: one.typer_instance for one in group.registered_groups}
        if word not in {*groups, *(one.name for one in group.registered_commands)}:
            break
        found += f" {word}"
        if (inner := groups.get(word)) is None:
            break
        group = inner
    return found


def _failed(error: LlavaEdgeError, words: Sequence[str]) -> int:
    as_json = failure.asks_for(words, "--json", "--json-stream") or wants_json(app, words)
    return failure.report(error, as_json=as_json)


def _run(words: Sequence[str]) -> int:
    command: Any = typer.main.get_command(app)
    watch(app, command)
    if "_LLAVA_EDGE_COMPLETE" in os.environ:
        command.main(prog_name="llava-edge", standalone_mode=False)  # a shell that completes ends in there
    status, default_map = 0, defaults(app, words)
    if (
        words
        and not failure.asks_for(words, "-h", "--help", "--version", "-q", "--quiet")
        and "doctor" not in words[:1]
    ):
        for line in unknown_variables(app):
            note(line)
    try:  # not click's own main, which turns a broken pipe into status 1
        with command.make_context("llava-edge", list(words), obj=app, default_map=default_map) as context:
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
