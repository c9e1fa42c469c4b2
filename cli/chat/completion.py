"""What Tab offers: commands, their options, and files."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .settings import option_names
from .slash import COMMANDS
from .words import PICTURE, Word, as_path, file_word, quoted


def completions(line: str) -> list[str]:
    """The whole lines that ``line`` may become, sorted."""
    if not line.startswith(("/", "~", "'", '"', "./", "../", "file:")):
        return []
    command, space, _ = line.partition(" ")
    names = sorted(name for each in COMMANDS for name in each.names)
    if not space and (matching := [name for name in names if name.startswith(command)]):
        return matching
    known = next((each for each in COMMANDS if command in each.names), None)
    if known is None:
        return list(_files(line, 0, pictures=True))
    if known.name == "/set":
        begun = line.removeprefix(command).lstrip()
        return [f"{command} {name} " for name in option_names() if name.startswith(begun)]
    if known.takes_files:
        start = len(command) + 1
        return list(_files(line, start, pictures=known.name == "/image"))
    return []


def _files(line: str, start: int, *, pictures: bool) -> Iterator[str]:
    """Lines with the last word behind ``start`` completed to a folder or a file."""
    at, word = start, Word("", start)
    while at < len(line):
        word = file_word(line, at)
        if word.end >= len(line):
            break
        at = word.end + 1
        word = Word("", at)
    begun = word.text
    typed_folder, slash, name = begun.rpartition("/")
    folder = as_path(typed_folder + slash) or "."
    quote = line[at : at + 1] if word.open_quote and line[at : at + 1] == word.open_quote else ""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (OSError, ValueError):
        return
    for entry in entries:
        hidden = entry.name.startswith(".") and not name.startswith(".")
        is_folder = _is_folder(entry)
        if entry.name.startswith(name) and not hidden and (is_folder or not pictures or PICTURE.search(entry.name)):
            path = typed_folder + slash + entry.name
            tilde = not quote and path.startswith("~")
            spelt = ("~" if tilde else "") + quoted(path[1:] if tilde else path, quote)
            yield line[:at] + quote + spelt + ("/" if is_folder else quote)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
