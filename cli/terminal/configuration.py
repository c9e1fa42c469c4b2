"""Defaults that a user sets once: a configuration file and environment variables.

The command line overrides ``LLAVA_EDGE_<OPTION>``, that overrides the file, and the file overrides what an option
declares. In the file a key is an option's name with ``_``; a command's table overrides the top. See
``docs/configuration.md``.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shlex
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import typer

from ...runtime.errors import OptionError
from ...runtime.options import GenerationOptions, LoadOptions, declared
from .failure import asks_for
from .visible import quoted, shortened

FILE: Final = "llava-edge.toml"
VARIABLE: Final = "LLAVA_EDGE_CONFIG"
PREFIX: Final = "LLAVA_EDGE_"
_TAKEN = ("cache", "config", "models", "token")
"""Variables with a meaning of their own, which commands read where they need it."""
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}


@dataclass(frozen=True)
class Setting:
    """An option of a command: the parameter it sets, the type of one value, how many there may be, and its range."""

    parameter: str
    kind: type[Any]
    many: bool = False
    words: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


Commands = dict[str, Any]
"""Settings by key, by the command's name; a group of commands has a dictionary of its own."""


def defaults(app: typer.Typer, words: Sequence[str]) -> dict[str, Any]:
    """What the command line ``words`` may leave out, as click's ``default_map``. Raises :class:`OptionError`.

    Nothing is read where only help or the version is asked for, so that a broken file does not hide how to mend it.
    """
    if asks_for(words, "-h", "--help", "--version") or "_LLAVA_EDGE_COMPLETE" in os.environ or not words:
        return {}
    named = [word for word in words if not word.startswith("-")][:2]
    if named[:1] == ["doctor"]:
        return {}
    commands = settings_of(app)
    return _merged(commands, _read(commands), named)


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


def settings_of(app: typer.Typer) -> Commands:
    """The settings of every command of ``app``."""
    found: Commands = {}
    for command in app.registered_commands:
        assert command.callback is not None
        found[command.name or ""] = dict(_settings(command.callback))
    for group in app.registered_groups:
        assert group.typer_instance is not None
        found[group.name or ""] = settings_of(group.typer_instance)
    return found


def _settings(command: Any) -> list[tuple[str, Setting]]:
    found = []
    for name, hint in get_type_hints(command, include_extras=True).items():
        info = next((one for one in getattr(hint, "__metadata__", ()) if type(one).__name__ == "OptionInfo"), None)
        if info is None:
            continue
        kind, many, words = _kind(get_args(hint)[0])
        setting = Setting(name, kind, many, words, info.min, info.max)
        declared_names = [info.default, *(info.param_decls or ())]  # in Annotated, typer takes the first for a default
        flags = [flag.split("/")[0] for flag in declared_names if isinstance(flag, str)]
        found += [(flag[2:].replace("-", "_"), setting) for flag in flags if flag.startswith("--")]
    return found


def _kind(hint: Any) -> tuple[type[Any], bool, tuple[str, ...]]:
    """The type of one value, whether there may be several, and the words it may be."""
    if get_origin(hint) is Literal:
        return str, False, get_args(hint)
    if get_origin(hint) in (list, tuple):
        return _kind(get_args(hint)[0])[0], True, ()
    parts = [part for part in get_args(hint) if part is not type(None)]
    if parts:
        return _kind(parts[0])
    return (hint if hint in (bool, int, float) else str), False, ()


def _merged(commands: Commands, read: Mapping[str, Any], named: Sequence[str]) -> dict[str, Any]:
    """``default_map``: the file's values for every command, the environment's for the one that is named."""
    found: dict[str, Any] = {}
    for name, inner in commands.items():
        own = table if isinstance(table := read.get(name), dict) else {}  # an option may be called as a command is
        if any(isinstance(one, dict) for one in inner.values()):
            below = {**{key: one for key, one in read.items() if not isinstance(one, dict)}, **own}
            found[name] = _merged(inner, below, named[1:] if named[:1] == [name] else [])
            continue
        values = _fitting_values(inner, read) | _fitting_values(inner, own)
        if named[:1] == [name]:
            values |= _from_environment(inner)
        found[name] = {inner[key].parameter: one for key, one in values.items()}
    return found


def _fitting_values(settings: Mapping[str, Setting], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values for a command's options; a key at the top may mean options of other commands alone."""
    found = {}
    for key, value in values.items():
        with contextlib.suppress(OptionError):
            if key in settings:
                found[key] = _checked(key, settings[key], value, key)
    return found


def _from_environment(settings: Mapping[str, Setting]) -> dict[str, Any]:
    found = {}
    for key, setting in settings.items():
        variable = PREFIX + key.upper()
        if key not in _TAKEN and (text := os.environ.get(variable)):
            found[key] = _checked(key, setting, _parsed(text, setting, variable), variable)
    return found


def _parsed(text: str, setting: Setting, variable: str) -> Any:
    """A variable's text as the value that a file would have; several values are words as a shell splits them."""
    if setting.many:
        try:
            parts = shlex.split(text)
        except ValueError as error:
            raise _wrong(variable, "words, those with spaces in quotes", f"{quoted(text)}, {error}") from None
        return [_parsed(part, Setting(setting.parameter, setting.kind), variable) for part in parts]
    if setting.kind is bool and text.lower() in (*_YES, *_NO):
        return text.lower() in _YES
    try:
        return text if setting.kind is str else setting.kind(text) if setting.kind is not bool else text
    except ValueError:
        return text  # and so of the wrong type


def _read(commands: Commands) -> dict[str, Any]:
    """The file's values by key and table, each held to its option. Raises :class:`OptionError`."""
    path = configuration_file()
    if path is None:
        return {}
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # TOML's and Unicode's errors are ValueErrors
        reason = error.strerror if isinstance(error, OSError) else str(error)
        fix = f"correct the file, or unset {VARIABLE}" if os.environ.get(VARIABLE) else "correct or remove the file"
        raise OptionError(expected=f"a configuration file in TOML at {path}", got=str(reason)[:200], fix=fix) from None
    return _table(tree, commands, path, "")


def _table(tree: Mapping[str, Any], commands: Commands, path: Path, within: str) -> dict[str, Any]:
    """One table of the file; in the top and in a group's, keys are options of any of its commands."""
    known = _all_settings(commands)
    found: dict[str, Any] = {}
    for key, value in tree.items():
        where = f"{within}{key}"
        if isinstance(value, dict) and isinstance(commands.get(key), dict):
            found[key] = _table(value, commands[key], path, f"{where}.")
        elif key in known and not isinstance(value, dict):
            _check_fits_one(key, known[key], value, f"{where} in {path}")
            found[key] = value
        else:
            raise _unknown(where, path, is_table=isinstance(value, dict), names=[*known, *commands])
    return found


def _unknown(where: str, path: Path, *, is_table: bool, names: Sequence[str]) -> OptionError:
    within, _, key = where.rpartition(".")
    what = "tables named after commands" if is_table else f"keys that are options{f' of {within!r}' if within else ''}"
    nearest = difflib.get_close_matches(key.replace("-", "_"), names, 1)
    fix = f"write {nearest[0]}" if nearest else "check its spelling; options have _ for -"
    return OptionError(expected=f"{what} in {path}", got=quoted(where), fix=fix)


def _all_settings(commands: Commands) -> dict[str, list[Setting]]:
    """Settings by key, of a command or of all commands below."""
    found: dict[str, list[Setting]] = {}
    for key, one in commands.items():
        if isinstance(one, Setting):
            found.setdefault(key, []).append(one)
        else:
            for inner, settings in _all_settings(one).items():
                found.setdefault(inner, []).extend(settings)
    return found


def _check_fits_one(key: str, settings: Sequence[Setting], value: Any, where: str) -> None:
    """Refuse what none of ``settings`` takes: at the top a key may mean options of different types."""
    refused = []
    for setting in settings:
        try:
            _checked(key, setting, value, where)
        except OptionError as error:
            refused.append(error)
    if len(refused) == len(settings):
        raise refused[0]


def _checked(key: str, setting: Setting, value: Any, where: str) -> Any:
    """``value`` as click takes it from a command line; of the right type, and in the option's range."""
    value = _word_for(key, value)
    values = value if setting.many and isinstance(value, list) else [value]
    for one in values:
        right = isinstance(one, int | float if setting.kind is float else setting.kind)
        if not right or isinstance(one, bool) != (setting.kind is bool):
            raise _wrong(where, _KINDS[setting.kind], shortened(repr(one)))
        if setting.words and one not in setting.words:
            raise _wrong(where, " or ".join(setting.words), quoted(str(one)))
        if (setting.low is not None and one < setting.low) or (setting.high is not None and one > setting.high):
            bounds = f"{setting.low or 0:g} or more" if setting.high is None else f"{setting.low:g} to {setting.high:g}"
            raise _wrong(where, bounds, str(one))
        if isinstance(one, str) and "\0" in one:
            raise _wrong(where, "text without NUL", quoted(one))
    _check_range(key, tuple(values) if setting.many else value, where)
    if setting.kind is bool:
        return value
    return [str(one) for one in values] if setting.many else str(value)


def _word_for(key: str, value: Any) -> Any:
    """The word that yes or no stands for, where an option takes words and may be given without one."""
    bare = declared(LoadOptions)[key].bare if key in declared(LoadOptions) else ""
    said = str(value).lower()
    return value if not bare or said not in (*_YES, *_NO) else bare if said in _YES else "off"


def _check_range(key: str, value: Any, where: str) -> None:
    """Hold an option of the runtime to what the runtime declares."""
    for kind in (GenerationOptions, LoadOptions):
        for name, option in declared(kind).items():
            flag = (option.flag or name).lstrip("-").replace("-", "_")
            if flag == key and get_origin(get_type_hints(kind)[name]) is not tuple:
                try:
                    kind(**{name: value})
                except OptionError as error:
                    raise _wrong(where, error.expected, error.got, error.fix) from None


def _wrong(where: str, expected: str, got: str, fix: str = "correct it") -> OptionError:
    return OptionError(expected=f"{expected} as {where}", got=got, fix=fix)
