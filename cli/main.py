"""The ``llava-edge`` program: wires the commands and turns errors into one line."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer

from ..runtime.errors import LlavaEdgeError
from .commands import ask, benchmark, chat, export, optimize, plan, quantize, serve, show, tiles, train, verify, worker

_USAGE_ERRORS: type[Exception] = next(one for one in typer.BadParameter.__mro__ if one.__name__ == "ClickException")
"""click's base of usage errors, wherever this typer has it: newer releases carry click inside."""

app = typer.Typer(
    name="llava-edge",
    help="LLaVA-NeXT on this machine: talk about pictures, export and shrink checkpoints.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("chat")(chat.chat)
app.command("ask")(ask.ask)
app.command("tiles")(tiles.tiles)
app.command("export")(export.export)
app.command("quantize")(quantize.quantize)
app.command("optimize")(optimize.optimize)
app.command("show")(show.show)
app.command("verify")(verify.verify)
app.command("train")(train.train)
app.command("plan")(plan.plan)
app.command("serve")(serve.serve)
app.command("worker")(worker.worker)
app.add_typer(benchmark.app, name="benchmark")


def main() -> None:
    """Run a command. User errors are one line on stderr and exit status 1, without a traceback."""
    try:
        status = app(standalone_mode=False)
    except LlavaEdgeError as error:
        _fail(str(error))
    except _USAGE_ERRORS as error:
        _fail_usage(error)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone; Python would complain about the unflushed rest
        sys.exit(141)
    sys.exit(status if isinstance(status, int) else 0)


def _fail_usage(error: Any) -> NoReturn:
    """A wrong command line. A bare ``llava-edge`` is none: it shows the help."""
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)
        sys.exit(0)
    context = getattr(error, "ctx", None)
    _fail(message.rstrip(".") + (f"; see '{context.command_path} --help'" if context else ""))


def _fail(message: str) -> NoReturn:
    print("llava-edge: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
