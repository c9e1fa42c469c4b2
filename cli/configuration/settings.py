"""What a configuration may set: each command's options by key, and whether a value fits one of them."""

from __future__ import annotations

import contextlib
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

from ...runtime.errors import OptionError
from ...runtime.option_checks import parse_endpoint, picture_share
from ...runtime.options import GenerationOptions, LoadOptions, declared, types_of
from ..terminal.options import parse_size, shares
from ..terminal.visible import quoted, shortened

_BUNDLES = ("BUNDLE", "MODEL")
"""Arguments that are what ``--model`` is elsewhere; the key "model" sets them too."""
_OWN_CHOICES = ("machine", "preset_name")
"""Parameters of commands that are one of the words in their metavar; the runtime's options are held to its own."""
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}


@dataclass(frozen=True)
class Setting:
    """An option of a command: the parameter it sets, the type of one value, how many there may be, and its range.

    ``count`` are the values that it has to have, where these are not any number; ``form`` is how the help writes one.
    """

    parameter: str
    kind: type[Any]
    many: bool = False
    words: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    count: int | None = None
    form: str = ""
    is_path: bool = False

    @property
    def type(self) -> tuple[Any, ...]:
        """What its values are; options of one name may differ in it."""
        return self.kind, self.many, self.count


Commands = dict[str, Any]
"""Settings by key, by the command's name; a group of commands has a dictionary of its own."""


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
        infos = {type(one).__name__: one for one in getattr(hint, "__metadata__", ())}
        argument, info = infos.get("ArgumentInfo"), infos.get("OptionInfo")
        if argument is not None and argument.metavar in _BUNDLES:
            found.append(("model", Setting(name, str, is_path=True)))
        if info is None:
            continue
        inner = get_args(hint)[0]
        kind, many, words = _kind(inner)
        if name in _OWN_CHOICES:
            words = tuple((info.metavar or "").split("|"))
        count = len(get_args(inner)) if get_origin(inner) is tuple and ... not in get_args(inner) else None
        setting = Setting(
            name, kind, many, words, info.min, info.max, count, info.metavar or "", Path in (inner, *get_args(inner))
        )
        declared_names = [info.default, *(info.param_decls or ())]  # in Annotated, typer takes the first for a default
        flags = [flag.split("/")[0] for flag in declared_names if isinstance(flag, str)]
        found += [(_key(flag, flags), setting) for flag in flags if flag.startswith("--")]
    return found


def _key(flag: str, flags: Sequence[str]) -> str:
    """An option's key. The bundle is "model" by whatever name ``-m`` has beside it, and nothing else is."""
    if "-m" in flags:
        return "model"
    return "endpoint_model" if flag == "--model" else flag[2:].replace("-", "_")


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


def all_settings(commands: Commands) -> dict[str, list[Setting]]:
    """Settings by key, of a command or of all commands below."""
    found: dict[str, list[Setting]] = {}
    for key, one in commands.items():
        if isinstance(one, Setting):
            found.setdefault(key, []).append(one)
        else:
            for inner, settings in all_settings(one).items():
                found.setdefault(inner, []).extend(settings)
    return found


def takers(key: str, settings: Sequence[Setting], value: Any) -> list[Setting]:
    """The options of one name that ``value`` can mean where no command is named: those that take it.

    Of options of different types these are of the most common one; where ``value`` has the form that some write,
    it is meant for those.
    """
    taking = []
    for setting in of_one_type(settings):
        with contextlib.suppress(OptionError):
            checked(key, setting, value, key)
            taking.append(setting)
    formed = [setting for setting in taking if check_form(setting.form) is not None]
    return formed or taking


def of_one_type(settings: Sequence[Setting]) -> list[Setting]:
    """Those of the type that most of them have."""
    common = Counter(setting.type for setting in settings).most_common(1)[0][0]
    return [setting for setting in settings if setting.type == common]


def parsed(text: str, setting: Setting, variable: str) -> Any:
    """A variable's text as the value that a file would have; several values are words as a shell splits them.

    Raises :class:`OptionError`.
    """
    if setting.many:
        try:
            parts = shlex.split(text)
        except ValueError as error:
            raise wrong(variable, "words, those with spaces in quotes", f"{quoted(text)}, {error}") from None
        return [parsed(part, replace(setting, many=False), variable) for part in parts]
    if setting.kind is bool and text.lower() in (*_YES, *_NO):
        return text.lower() in _YES
    try:
        return text if setting.kind is str else setting.kind(text) if setting.kind is not bool else text
    except ValueError:
        return text  # and so of the wrong type


def checked(key: str, setting: Setting, value: Any, where: str) -> Any:
    """``value`` as click takes it from a command line; of the right type, and in the option's range.

    ``where`` is what errors call it. Raises :class:`OptionError`.
    """
    value = _word_for(key, value)
    values = value if setting.many and isinstance(value, list) else [value]
    if setting.form == _COUNT:
        values = [str(one) if type(one) is int else one for one in values]
    for one in values:
        _check_one(setting, one, where)
        _check_range(key, one, where)
    if setting.count is not None and len(values) != setting.count:
        kind = _KINDS[setting.kind].removeprefix("a ")
        raise wrong(where, f"[{', '.join([kind] * setting.count)}]", shortened(repr(value)))
    if setting.kind is bool:
        return value
    return [str(one) for one in values] if setting.many else str(values[0])


def _word_for(key: str, value: Any) -> Any:
    """The word that yes or no stands for, where an option takes words and may be given without one."""
    bare = declared(LoadOptions)[key].bare if key in declared(LoadOptions) else ""
    said = str(value).lower()
    return value if not bare or said not in (*_YES, *_NO) else bare if said in _YES else "off"


def _check_one(setting: Setting, value: Any, where: str) -> None:
    right = isinstance(value, int | float if setting.kind is float else setting.kind)
    if not right or isinstance(value, bool) != (setting.kind is bool):
        kind = f"{_KINDS[int]}, or {_KINDS[str]}" if setting.form == _COUNT else _KINDS[setting.kind]
        raise wrong(where, kind, shortened(repr(value)))
    if setting.words and value not in setting.words:
        raise wrong(where, " or ".join(setting.words), quoted(str(value)))
    if (setting.low is not None and value < setting.low) or (setting.high is not None and value > setting.high):
        bounds = f"{setting.low or 0:g} or more" if setting.high is None else f"{setting.low:g} to {setting.high:g}"
        raise wrong(where, bounds, str(value))
    if isinstance(value, str) and "\0" in value:
        raise wrong(where, "text without NUL", quoted(value))
    if value == "" and setting.is_path:
        raise wrong(where, "a path", "an empty text", "write a path, or leave the key out")
    if isinstance(value, str) and (check := check_form(setting.form)) is not None:
        try:
            check(value)
        except OptionError as error:
            raise wrong(where, error.expected, error.got, error.fix) from None


def _check_range(key: str, value: Any, where: str) -> None:
    """Hold an option of the runtime to what the runtime declares."""
    for kind in (GenerationOptions, LoadOptions):
        for name, option in declared(kind).items():
            flag = (option.flag or name).lstrip("-").replace("-", "_")
            if flag == key and get_origin(types_of(kind)[name]) is not tuple:
                try:
                    kind(**{name: value})
                except OptionError as error:
                    raise wrong(where, error.expected, error.got, error.fix) from None


def wrong(where: str, expected: str, got: str, fix: str = "correct it") -> OptionError:
    """The error about a value that is not as expected."""
    return OptionError(expected=f"{expected} as {where}", got=got, fix=fix)


Check = Callable[[str], object]


def check_form(form: str) -> Check | None:
    """What raises :class:`OptionError` for a text unlike the help's ``form``; None where any text will do."""
    if form in _FORMS:
        return _FORMS[form]
    return next((check for begin, check in _DEVICES.items() if form.startswith(begin)), None)


def _gpu(text: str) -> None:
    from ..terminal.plan_sources import parse_device  # which needs the planner

    parse_device(text, "gpu")


def _worker(text: str) -> None:
    from ..terminal.plan_sources import parse_device

    parse_device(text, "rpc")


def _host(text: str) -> None:
    from ..terminal.plan_sources import parse_device

    if text:  # which is what is free
        parse_device(f"host={text}", "cpu")


def _shares(text: str) -> None:
    LoadOptions(tensor_split=shares(text))


_COUNT = "N|N%"
"""The form of a number, which may also be written as one, or a share."""
_FORMS: dict[str, Check] = {
    "HOST:PORT": parse_endpoint,
    "SIZE": parse_size,
    "SHARES": _shares,
    _COUNT: picture_share,
}
_DEVICES: dict[str, Check] = {"NAME=": _gpu, "HOST:PORT=": _worker, "64G": _host}
"""By what the form begins with; the rest of it tells of parts that may be left out."""
