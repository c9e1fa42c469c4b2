"""Defaults that a user sets once: a configuration file and environment variables.

The command line overrides ``LLAVA_EDGE_<OPTION>``, that overrides the file, and the file overrides what an option
declares. In the file a key is an option's name with ``_``; a command's table overrides the top. See
``docs/configuration.md``.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import typer

from ...runtime.bundle.named import find_bundle
from ...runtime.errors import LlavaEdgeError, OptionError
from ...runtime.system.plain_files import read_plain_text
from ..terminal.failure import asks_for
from ..terminal.visible import quoted
from .settings import Commands, Setting, all_settings, checked, of_one_type, parsed, settings_of, takers

FILE: Final = "llava-edge.toml"
VARIABLE: Final = "LLAVA_EDGE_CONFIG"
PREFIX: Final = "LLAVA_EDGE_"
_TAKEN = ("cache", "config", "models", "token")
"""Variables with a meaning of their own, which commands read where they need it."""
_SHORT = {"model": "-m", "output": "-o", "number": "-k"}
"""Options that have a short form and may be configured."""
_COMMAND_LINE_ONLY = ("help", "version", "install_completion", "show_completion")


def defaults(app: typer.Typer, words: Sequence[str]) -> dict[str, Any]:
    """What the command line ``words`` may leave out, as click's ``default_map``. Raises :class:`OptionError`.

    Nothing is read where only help or the version is asked for, so that a broken file does not hide how to mend it.
    """
    if asks_for(words, "-h", "--help", "--version") or "_LLAVA_EDGE_COMPLETE" in os.environ or not words:
        return {}
    named = _named(words)
    if named[:1] == ["doctor"]:
        return {}
    commands = settings_of(app)
    return _merged(commands, _read(commands), named, all_settings(commands))


def _named(words: Sequence[str]) -> list[str]:
    """The words that may name a command, and one of its group."""
    return [word for word in words if not word.startswith("-")][:2]


def wants_json(app: typer.Typer, words: Sequence[str]) -> bool:
    """Whether the configuration asks for the JSON of the command that ``words`` are; no where it can't be read."""
    try:
        found: Any = defaults(app, words)
    except OptionError:
        return False
    for word in _named(words):
        inner = found.get(word)
        found = inner if isinstance(inner, dict) else found
    return found.get("as_json") is True or found.get("json_stream") is True


def set_where(app: typer.Typer, words: Sequence[str], error: LlavaEdgeError) -> str:
    """Where a value that ``error`` complains about was set, if the command ``words`` does not say it; else nothing.

    The error knows the value, or the path, and not that a file or a variable set it.
    """
    with suppress(OptionError):
        found: Any = defaults(app, words)
        settings: Any = settings_of(app)
        tables = [_read(settings)]
        for word in _named(words):
            if isinstance(found.get(word), dict):
                found, settings = found[word], settings[word]
                tables.append(tables[-1].get(word, {}))
        for parameter, value in found.items():
            keys = [key for key, one in settings.items() if isinstance(one, Setting) and one.parameter == parameter]
            if _complained_about(value, error) and not any(_typed(words, key) for key in keys):
                variables = [PREFIX + key.upper() for key in keys if os.environ.get(PREFIX + key.upper())]
                written = [f"{key} in {configuration_file()}" for table in tables for key in keys if key in table]
                where = next(iter(variables + written), "")
                return "" if where in str(error) else where
    return ""


def _complained_about(value: Any, error: LlavaEdgeError) -> bool:
    """Whether a value stands in what an option's error got, or a path in any error."""
    for one in value if isinstance(value, list) else [value]:
        text = os.path.expanduser(str(one))
        said = error.got if isinstance(error, OptionError) else ""
        if os.sep in text:
            said += f" {error.expected}"
        if text and not isinstance(one, bool) and re.search(rf"(?<![\w./-]){re.escape(text)}(?![\w.])", said):
            return True
    return False


def _typed(words: Sequence[str], key: str) -> bool:
    flags = ("--" + key.replace("_", "-"), _SHORT.get(key))
    return any(word.partition("=")[0] in flags for word in words)


def configuration_file() -> Path | None:
    """The file that is read: ``LLAVA_EDGE_CONFIG``, or the first that is there in the user's configuration folder."""
    if named := os.environ.get(VARIABLE):
        return Path(os.path.expanduser(named))
    folder = configuration_folder()
    places = [folder / FILE, folder / "llava-edge" / FILE] if folder is not None else []
    return next((place for place in places if os.path.lexists(place)), None)


def configuration_folder() -> Path | None:
    """Where the system keeps a user's configurations; None for a user without a home."""
    if sys.platform == "win32":
        usual = os.environ.get("APPDATA") or os.path.expanduser("~\\AppData\\Roaming")
    elif sys.platform == "darwin":
        usual = os.path.expanduser("~/Library/Application Support")
    else:
        usual = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return None if usual.startswith("~") else Path(usual)


def found_in(app: typer.Typer) -> dict[str, Any]:
    """The file that a command would read, and what it sets. Raises :class:`OptionError`."""
    path = configuration_file()
    return {"file": None if path is None else str(path), "sets": _read(settings_of(app))}


def _merged(
    commands: Commands, read: Mapping[str, Any], named: Sequence[str], known: Mapping[str, Sequence[Setting]]
) -> dict[str, Any]:
    """``default_map``: the file's values for every command, the environment's for the one that is named."""
    found: dict[str, Any] = {}
    for name, inner in commands.items():
        table = read.get(name)
        table = table if isinstance(table, dict) else {}  # an option may be called as a command is
        if any(isinstance(one, dict) for one in inner.values()):
            below = {**{key: one for key, one in read.items() if not isinstance(one, dict)}, **table}
            found[name] = _merged(inner, below, named[1:] if named[:1] == [name] else [], known)
            continue
        values = _fitting_values(inner, read, known) | _own_values(inner, table)
        if named[:1] == [name]:
            values |= _from_environment(inner, known)
        found[name] = {inner[key].parameter: one for key, one in values.items()}
    return found


def _own_values(settings: Mapping[str, Setting], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a command's own table, which were checked when they were read."""
    return {key: checked(key, settings[key], value, key) for key, value in values.items() if key in settings}


def _fitting_values(
    settings: Mapping[str, Setting], values: Mapping[str, Any], known: Mapping[str, Sequence[Setting]]
) -> dict[str, Any]:
    """Values for a command's options; a key at the top may mean options of other commands alone."""
    found = {}
    for key, value in values.items():
        if key in settings and not isinstance(value, dict) and settings[key] in takers(key, known[key], value):
            found[key] = checked(key, settings[key], value, key)
    return found


def _from_environment(settings: Mapping[str, Setting], known: Mapping[str, Sequence[Setting]]) -> dict[str, Any]:
    found = {}
    for key, setting in settings.items():
        variable = PREFIX + key.upper()
        if key not in _TAKEN and (text := os.environ.get(variable)):
            usual = of_one_type(known[key])
            value = parsed(text, usual[0], variable)
            taking = takers(key, usual, value)
            if setting in taking or (setting in usual and not taking):
                found[key] = checked(key, setting, value, variable)
    return found


def wrong_settings(app: typer.Typer) -> list[str]:
    """What is wrong with what is set, a sentence each.

    Variables that set nothing, values that no option takes, models that are not there. Of a file that is wrong itself
    nothing is said.
    """
    known = all_settings(settings_of(app))
    found = [str(error) for key in known for error in _wrong_values(key, known[key])]
    return [*found, *unknown_variables(app), *_missing_models(app)]


def _missing_models(app: typer.Typer) -> Iterator[str]:
    """The models that are configured, and no folder."""
    try:
        read = _read(settings_of(app))
    except OptionError:
        read = {}
    named = [(f"{PREFIX}MODEL", os.environ.get(f"{PREFIX}MODEL", "")), *_models(read, "")]
    for where, model in named:
        if model and not os.path.isdir(find_bundle(os.path.expanduser(model))):
            yield f"{where} is {quoted(model)}, which is no folder and no model of 'llava-edge list'"


def _models(table: Mapping[str, Any], within: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _models(value, f"{within}{key}.")
        elif key == "model":
            yield f"{within}{key} in the configuration file", value


def _wrong_values(key: str, settings: Sequence[Setting]) -> Iterator[OptionError]:
    variable, options = PREFIX + key.upper(), of_one_type(settings)
    if key in _TAKEN or not (text := os.environ.get(variable)):
        return
    try:
        value = parsed(text, options[0], variable)
        if not takers(key, options, value):
            checked(key, options[0], value, variable)
    except OptionError as error:
        yield error


def unknown_variables(app: typer.Typer) -> list[str]:
    """A sentence for each variable that looks like an option's, and is none."""
    known = {key.upper() for key in (*all_settings(settings_of(app)), *_TAKEN)}
    found = []
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}TEST_") and name.removeprefix(PREFIX) not in known:
            nearest = difflib.get_close_matches(name.removeprefix(PREFIX), sorted(known), 1, 0.7)
            hint = f"did you mean {PREFIX}{nearest[0]}?" if nearest else "unset it"
            found.append(f"{quoted(name)} sets nothing: {hint}")
    return found


def _read(commands: Commands) -> dict[str, Any]:
    """The file's values by key and table, each held to its option. Raises :class:`OptionError`."""
    path = configuration_file()
    if path is None:
        return {}
    try:
        tree = tomllib.loads(read_plain_text(path, encoding="utf-8-sig", stream=True))
    except (OSError, ValueError, RecursionError) as error:  # TOML's and Unicode's errors are ValueErrors
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, UnicodeDecodeError):
            reason = f"byte 0x{error.object[error.start]:02x} at {error.start:,}, no UTF-8 text"
        fix = f"correct the file, or unset {VARIABLE}" if os.environ.get(VARIABLE) else "correct or remove the file"
        raise OptionError(expected=f"a configuration file in TOML at {path}", got=str(reason)[:200], fix=fix) from None
    return _table(tree, commands, path, "")


def _table(tree: Mapping[str, Any], commands: Commands, path: Path, within: str) -> dict[str, Any]:
    """One table of the file; in the top and in a group's, keys are options of any of its commands."""
    known = all_settings(commands)
    found: dict[str, Any] = {}
    for key, value in tree.items():
        where = f"{within}{key}"
        if isinstance(value, dict) and isinstance(commands.get(key), dict):
            found[key] = _table(value, commands[key], path, f"{where}.")
        elif key in known and not isinstance(value, dict):
            _check_fits_one(key, known[key], value, f"{where} in {path}")
            found[key] = value
        else:
            raise _unknown(where, path, value, known, commands)
    return found


def _unknown(
    where: str, path: Path, value: Any, known: Mapping[str, Sequence[Setting]], commands: Commands
) -> OptionError:
    """A key or a table that there is not: what it is instead, or which name is the nearest."""
    within, _, key = where.rpartition(".")
    is_table, got = isinstance(value, dict), quoted(where)
    tables = [name for name, one in commands.items() if isinstance(one, dict)]
    what = "tables named after commands" if is_table else f"keys that are options{f' of {within!r}' if within else ''}"
    nearest = difflib.get_close_matches(key.replace("-", "_").lower(), tables if is_table else known, 1)
    fix = f"write {nearest[0]}" if nearest else "check its spelling; options have _ for -"
    if is_table and key in known:
        what, got, fix = f"a value as {where}", f"{got}, a table", f"write {key} = VALUE"
    elif key in tables:
        got, fix = f"{got} as a key, which is a command", f"write [{where}] on a line, and its options below"
    elif key in _COMMAND_LINE_ONLY:
        got, fix = f"{got}, which is for the command line alone", "leave it out"
    elif key.startswith("no_") and any(one.kind is bool for one in known.get(key[3:], ())):
        fix = f"write {key[3:]} = false"
    return OptionError(expected=f"{what} in {path}", got=got, fix=fix)


def _check_fits_one(key: str, settings: Sequence[Setting], value: Any, where: str) -> None:
    """Refuse what none of ``settings`` takes: at the top a key may mean options of different ranges."""
    if not takers(key, settings, value):
        checked(key, of_one_type(settings)[0], value, where)
