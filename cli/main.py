"""The ``llava-edge`` program: wires the commands and turns errors into one line."""

from __future__ import annotations

import sys

import click
import typer

from ..runtime.errors import LlavaEdgeError
from . import ask, benchmark, chat, export, quantize, show, tiles, train, verify

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
app.command("show")(show.show)
app.command("verify")(verify.verify)
app.command("train")(train.train)
app.add_typer(benchmark.app, name="benchmark")


def main() -> None:
    """Run a command. User errors are one line on stderr and exit status 1, without a traceback."""
    try:
        status = app(standalone_mode=False)
    except LlavaEdgeError as error:
        _fail(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        sys.exit(0)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"; see '{context.command_path} --help'" if context else ""
        _fail(error.format_message().rstrip(".").replace("\n", " ") + hint)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone; Python would complain about the unflushed rest
        sys.exit(141)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str) -> None:
    print("llava-edge: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
