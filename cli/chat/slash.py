"""The slash commands: names, arguments and help."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from difflib import get_close_matches

from ...runtime.errors import OptionError


@dataclass(frozen=True)
class Command:
    """A slash command. ``argument`` is how the help writes what follows it."""

    names: tuple[str, ...]
    argument: str
    help: str
    takes_files: bool = False

    @property
    def name(self) -> str:
        """The name that the help begins with."""
        return self.names[0]


COMMANDS = (
    Command(("/image",), "FILE...", "add pictures to the next question; dropping them here does the same", True),
    Command(("/set",), "[OPTION [VALUE]]", "show or change sampling: temperature, max-tokens, seed, stop ..."),
    Command(("/system",), "[TEXT]", 'show or change the system message; "" takes it away'),
    Command(("/retry",), "", "ask the last question again"),
    Command(("/undo",), "", "take back a waiting picture, else the last question and its answer"),
    Command(("/save",), "[--force] FILE", "write the conversation as Markdown; --force replaces a file", True),
    Command(("/clear",), "", "forget the conversation and its pictures"),
    Command(("/stats",), "", "statistics of the latest answer"),
    Command(("/help", "/?"), "", "this list"),
    Command(("/quit", "/exit", "/bye"), "", "leave (so does Ctrl-D)"),
)
_NARROWEST = 24
"""Columns for the help beside a command; with fewer it goes below."""
SEVERAL_LINES = 'Text between """ and """ may have several lines, and pasted text is one question.'


def help_text(columns: int = 80) -> str:
    """What /help prints: each command with what it does, in lines of fewer than ``columns`` characters, words whole."""
    heads = [f"{', '.join(one.names)} {one.argument}".rstrip() for one in COMMANDS]
    width = max(map(len, heads)) + 2
    beside = columns - 1 - width >= _NARROWEST
    indent = " " * (width if beside else 2)
    rows = []
    for head, one in zip(heads, COMMANDS, strict=True):
        text = _wrapped(one.help, columns, indent)
        rows.append(head.ljust(width) + text[width:] if beside else f"{head}\n{text}")
    return "\n".join([*rows, _wrapped(SEVERAL_LINES, columns)])


def _wrapped(text: str, columns: int, indent: str = "") -> str:
    return textwrap.fill(
        text,
        max(columns - 1, len(indent) + 1),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def find(name: str) -> Command | None:
    """The command called ``name``, in whatever case."""
    return next((one for one in COMMANDS if name.lower() in one.names), None)


def superfluous(name: str, rest: str) -> OptionError:
    """The error about words behind a command that takes none."""
    return OptionError(
        expected=f"nothing after {name}",
        got=repr(rest if len(rest) <= 60 else f"{rest[:59]}…"),
        fix=f'write {name} alone; a question that begins with / goes between """ and """',
    )


def unknown(name: str) -> OptionError:
    """The error about a command that there is not: it names the nearest one."""
    near = get_close_matches(name.lower(), [each for one in COMMANDS for each in one.names], 1)
    return OptionError(
        expected="a command that /help lists",
        got=f"unknown command {name[:60]}",
        fix=f"did you mean {near[0]}?" if near else 'a question that begins with / goes between """ and """',
    )
