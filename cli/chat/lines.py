"""What a person types or pastes, and what a pipe sends: one question or command at a time."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType

from .history import History

BLOCK = '"""'
GONE = {errno.EIO, errno.ENXIO}
"""What a terminal says that is no longer there."""


@dataclass(frozen=True)
class Entry:
    """What was entered, without white space around it. ``literal`` is a question, whatever it begins with."""

    text: str
    literal: bool = False


class Lines:
    """Entries from standard input, with editing, history and Tab on a terminal whose Python has readline.

    Raises nothing but KeyboardInterrupt (:attr:`abandoned` then says whether a line was begun), and ends where the
    input does.
    """

    def __init__(self, history: History, complete: Callable[[str], list[str]]) -> None:
        self.interactive = sys.stdin.isatty()
        self.abandoned = False
        self._history = history
        self._editor = _editor() if self.interactive and sys.stdout.isatty() else None
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # names of files may be no UTF-8
        if self._editor is not None:
            _set_up(self._editor, history, complete)

    def read(self) -> Entry | None:
        """The next entry, or None at the end."""
        self.abandoned = False
        first = self._line("> ")
        if first is None:
            return None
        text = first
        try:
            if first.lstrip().startswith(BLOCK):
                return self._remember(first, self._block(first.lstrip()[len(BLOCK) :]), literal=True)
            while self.interactive and _continues(text):
                more = self._line(". ")
                if more is None:
                    break
                text = f"{text.rstrip()[:-1]}\n{more}"
        except KeyboardInterrupt:
            self.abandoned = True
            raise
        return self._remember(text, text, literal=False)

    def close(self) -> None:
        """Write the history."""
        self._history.save()

    def _block(self, text: str) -> str:
        """The text up to the closing marks, or to the end of the input."""
        while not text.rstrip().endswith(BLOCK):
            more = self._line(". ")
            if more is None:
                return text
            text = f"{text}\n{more}"
        return text.rstrip()[: -len(BLOCK)]

    def _remember(self, typed: str, text: str, *, literal: bool) -> Entry:
        entry = typed if not literal else f"{BLOCK}{text}{BLOCK}"
        if self._editor is not None and typed.strip():
            self._history.add(entry)
            if not entry.startswith(" "):
                _add(self._editor, entry)
        return Entry(text.strip(), literal)

    def _line(self, prompt: str) -> str | None:
        try:
            if not self.interactive:
                line = sys.stdin.readline()
                return line.lstrip("\ufeff").rstrip("\r\n") if line else None
            if not sys.stdout.isatty():  # else input() would write the prompt among the answers
                print(prompt, end="", file=sys.stderr, flush=True)
                prompt = ""
            return input(prompt)
        except EOFError:
            return None
        except KeyboardInterrupt:
            self.abandoned = bool(self._editor and self._editor.get_line_buffer().strip())
            raise
        except OSError as error:
            if error.errno in {*GONE, errno.EBADF}:
                return None
            raise


def _continues(text: str) -> bool:
    """Whether a line goes on in the next: it ends with one backslash, and is no command with a path of Windows."""
    ending = len(text.rstrip()) - len(text.rstrip().rstrip("\\"))
    return ending == 1 and not text.lstrip().startswith("/")


def _editor() -> ModuleType | None:
    try:
        import readline
    except ImportError:  # Windows, and Pythons built without it: plain lines
        return None
    return readline


def _set_up(readline: ModuleType, history: History, complete: Callable[[str], list[str]]) -> None:
    offered: list[str] = []

    def completer(text: str, state: int) -> str | None:
        nonlocal offered
        if state == 0:
            offered = complete(text)
            if len(offered) == 1 and offered[0][-1:] not in ("/", " "):
                offered = [f"{offered[0]} "]  # as in shells: the next word can be typed at once
        return offered[state] if state < len(offered) else None

    def show(_substitution: str, matches: list[str], _longest: int) -> None:
        """Only what differs: the ends of the lines."""
        names = [match.rstrip("/").rsplit("/", 1)[-1] + ("/" if match.endswith("/") else "") for match in matches]
        sys.stdout.write("\n" + "  ".join(names) + "\n> " + readline.get_line_buffer())
        sys.stdout.flush()
        readline.redisplay()

    readline.set_completer(completer)
    readline.set_completer_delims("")  # a path has spaces: the completer is given the whole line
    readline.set_auto_history(False)
    if "libedit" in (readline.__doc__ or ""):
        readline.parse_and_bind("bind ^I rl_complete")
    else:
        readline.parse_and_bind("tab: complete")
        readline.parse_and_bind("set enable-bracketed-paste on")
        readline.set_completion_display_matches_hook(show)
    readline.clear_history()
    for entry in history.earlier:
        readline.add_history(entry)


def _add(readline: ModuleType, entry: str) -> None:
    """Put an entry last, once."""
    for at in reversed(range(readline.get_current_history_length())):
        if readline.get_history_item(at + 1) == entry:
            with suppress(ValueError):
                readline.remove_history_item(at)
    readline.add_history(entry)
