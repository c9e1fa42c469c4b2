"""Options that several commands share, declared once; those of the runtime are taken from where it declares them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
import typer.core

from ...runtime.errors import OptionError
from ...runtime.options import GenerationOptions, LoadOptions, declared, types_of
from ...runtime.pictures.geometry import READINGS
from .failure import GIVEN
from .text_or_file import text_or_file
from .visible import typed_text

_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}
_TEXTS = ("question", "system", "stop")
"""Parameters that are prose: what of them is no UTF-8 is replaced, where a path needs the very bytes."""
_PATHS = ("imatrix", "data", "cache", "checkpoint", "model", "vision_tower", "question_file", "image", "images")
"""Parameters that may be a path beside other things, and so are declared as text."""


def parse_size(text: str) -> int:
    """Bytes of "48G", "500M", "8K" or a plain number; units are powers of a thousand, as gguf-split has them."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMG]?)B?", text.strip().upper())
    size = int(float(match[1]) * _UNITS.get(match[2], 1)) if match else 0
    if size <= 0:
        raise OptionError(expected="a size like 48G or 500M", got=repr(text), fix="give a number and K, M or G")
    return size


def _flag(kind: type[Any], name: str) -> str:
    return declared(kind)[name].flag or "--" + name.replace("_", "-")


def _typed(kind: type[Any], name: str) -> Any:
    """The type that typer parses for a field: lists and comma-separated shares for tuples, a word for words."""
    hint = types_of(kind)[name]
    if declared(kind)[name].or_file or declared(kind)[name].bare or os.PathLike[str] in get_args(hint):
        return str | None
    if {int, str} <= set(get_args(hint)):
        return str | None
    if get_origin(hint) is tuple:
        return (list[str] if get_args(hint)[0] is str else str) | None
    if any(get_origin(part) is Literal for part in (hint, *get_args(hint))):
        return str | None if type(None) in get_args(hint) else str
    return hint


BARE = {
    _flag(LoadOptions, name): f"{_flag(LoadOptions, name)}={declaration.bare}"
    for name, declaration in declared(LoadOptions).items()
    if declaration.bare
}
"""Options that may be given without a value, and what they mean then."""
_BARE_WORDS = {
    _flag(LoadOptions, name): tuple(filter(None, one.words)) for name, one in declared(LoadOptions).items() if one.bare
}
"""The values they may have. Behind such an option, these are its value; another word is an argument."""


def option(kind: type[Any], name: str) -> Any:
    """typer's description of one field of :class:`LoadOptions` or :class:`GenerationOptions`."""
    declaration, flag = declared(kind)[name], _flag(kind, name)
    if _typed(kind, name) == bool | None:
        flag = f"{flag}/--no-{flag[2:]}"
    words = "|".join(filter(None, declaration.words)) or None
    metavar = declaration.metavar or words
    return typer.Option(flag, metavar=metavar, help=declaration.help, show_default=declaration.show_default)


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the runtime.

    Each keyword-only parameter of ``command`` that is a :class:`LoadOptions` or :class:`GenerationOptions` is
    replaced, in its place, by the options that the class declares; ``command`` then gets the one value. An option
    that ``command`` has itself under the same name is its own, and the class keeps its default.
    """
    hints = get_type_hints(command, include_extras=True)
    kinds = {name: hint for name, hint in hints.items() if hint in (LoadOptions, GenerationOptions)}
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if name in kinds:
            parameters |= {other: one for other, one in _parameters(kinds[name]).items() if other not in hints}
        else:
            parameters[name] = parameter.replace(annotation=hints[name])

    @functools.wraps(command)
    def run(**given: Any) -> None:
        own = {name: value for name, value in given.items() if name in hints}
        declared_ones = {name: value for name, value in given.items() if name not in hints}
        values = {name: _value(kind, declared_ones) for name, kind in kinds.items()}
        command(**own, **values)

    run.__dict__["__signature__"] = inspect.Signature(list(parameters.values()))
    run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return run


def _parameters(kind: type[Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a command for an options class; fields with the same flag are one."""
    parameters: dict[str, inspect.Parameter] = {}
    for name, declaration in declared(kind).items():
        if not declaration.in_python_only:
            parameter = _parameter(kind, name)
            default = None if declaration.bare else getattr(kind, name)
            parameters.setdefault(
                parameter,
                inspect.Parameter(
                    parameter,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=None if default == () else default,
                    annotation=Annotated[_typed(kind, name), option(kind, name)],
                ),
            )
    return parameters


def _parameter(kind: type[Any], name: str) -> str:
    return _flag(kind, name)[2:].replace("-", "_")


def _value(kind: type[Any], given: Mapping[str, Any]) -> Any:
    """The options value of a command's parameters. Raises :class:`OptionError`."""
    values = {}
    for name, declaration in declared(kind).items():
        if not declaration.in_python_only and _parameter(kind, name) in given:
            value = given[_parameter(kind, name)]
            if types_of(kind)[name] == tuple[float, ...]:
                value = shares(value)
            if declaration.bare and value is None:
                continue
            if declaration.or_file and value is not None:
                value = text_or_file(value, _flag(kind, name))
            values[name] = tuple(value or ()) if getattr(kind, name) == () else value
    return kind(**values)


RIVALS = (("cache", "no_cache"), ("socket", "port"), ("socket", "host"))
"""Parameters of which one says what the other contradicts: the one on the command line holds."""


class Command(typer.core.TyperCommand):
    """A command as click has it, but some options may be given without their value: ``--isolate sign.png``."""

    def __init__(self, *positional: Any, **given: Any) -> None:
        super().__init__(*positional, **given)
        parameters: list[Any] = self.params
        for one in parameters if self._takes_words() else ():
            if any(flag in BARE for flag in one.opts):
                one.get_help_record = functools.partial(_bare_record, one.get_help_record)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse ``args`` with the values that such options have then."""
        end = args.index("--") if "--" in args else len(args)
        left = super().parse_args(ctx, [*self._with_values(args[:end]), *args[end:]])
        defaults = {one.name: one.default for one in self.params}
        for pair in RIVALS:
            if ctx.params.keys() >= set(pair) and typed(ctx, pair[0]) != typed(ctx, pair[1]):
                loser = pair[typed(ctx, pair[0])]
                ctx.params[loser] = defaults[loser]  # whatever a configuration says
        _settle_name(ctx)
        return left

    def _with_values(self, words: list[str]) -> Iterator[str]:
        """``words`` with the values of options that came without; a command that takes no words has them behind."""
        takes_words = self._takes_words()
        for word, behind in itertools.pairwise([*words, "-"]):
            value_follows = behind in _BARE_WORDS.get(word, ()) if takes_words else not behind.startswith("-")
            yield word if value_follows else BARE.get(word, word)

    def _takes_words(self) -> bool:
        return any(one.param_type_name == "argument" for one in self.params)


def _settle_name(ctx: Any) -> None:
    """A name is kept under, and ``--no-cache`` keeps nothing: refuse both of one command line, typed beats configured.

    A name that is typed is kept also where a configuration says ``no_cache``, which then means the rest.
    """
    if not ctx.params.keys() >= {"name", "no_cache"} or ctx.params["name"] is None or not ctx.params["no_cache"]:
        return
    if not typed(ctx, "no_cache"):
        return
    if typed(ctx, "name"):
        raise OptionError(
            expected="--name, which keeps the conversation, or --no-cache, which keeps nothing",
            got="both",
            fix="leave one of them out",
        )
    ctx.params["name"] = None


def typed(ctx: Any, name: str) -> bool:
    """Whether an option stands on the command line."""
    return str(ctx.get_parameter_source(name).name) == "COMMANDLINE"


def register(app: typer.Typer, name: str, command: Callable[..., None], *, cls: Any = Command) -> None:
    """Make ``command`` the command ``name`` of ``app``; its paths and texts are read as :func:`_meant` says."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(**{name: _meant(name, value) for name, value in given.items()})

    app.command(name, cls=cls)(run)


def watch(app: typer.Typer, group: Any) -> None:
    """Let the click commands in ``group``, which are ``app``'s, refuse what is no path, and say what value is wrong."""
    for command in app.registered_commands:
        hints = get_type_hints(command.callback, include_extras=True)
        paths = {name for name, hint in hints.items() if name in _PATHS or _holds_path(hint)}
        for parameter in group.commands[command.name].params:
            process = functools.partial(_process, parameter, parameter.process_value, parameter.name in paths)
            parameter.process_value = process
    for inner in app.registered_groups:
        assert inner.typer_instance is not None
        watch(inner.typer_instance, group.commands[inner.name])


def _bare_record(record: Callable[[Any], tuple[str, str] | None], context: Any) -> tuple[str, str] | None:
    """An option's line of the help, its value in brackets: it may be left out."""
    said = record(context)
    if said is None:
        return None
    flag, _, values = said[0].partition(" ")
    return f"{flag}[={values}]", said[1]


def _holds_path(hint: Any) -> bool:
    return hint is Path or any(_holds_path(part) for part in get_args(hint))


def _process(parameter: Any, process: Callable[[Any, Any], Any], is_path: bool, context: Any, value: Any) -> Any:
    """click's ``process_value``; Path would make the working folder of an empty text, and a file of the word "-"."""
    if is_path and value != parameter.default:
        for text in value if isinstance(value, list | tuple) else [value]:
            _refuse_no_path(parameter, text)
    try:
        return process(context, value)
    except Exception as error:
        if getattr(error, "param", None) is parameter:
            setattr(error, GIVEN, value)
        raise


def _refuse_no_path(parameter: Any, text: object) -> None:
    option = parameter.param_type_name == "option"
    name = max(parameter.opts, key=len) if option else parameter.metavar or parameter.name.upper()
    if text == "":
        fix = "give one" if parameter.required else f"give one, or leave {name} out"
        raise OptionError(expected=f"a path for {name}", got="an empty text", fix=fix)
    if text == "-" and parameter.name not in ("question_file", "image"):  # which standard input may be
        raise OptionError(
            expected=f"a path for {name}", got="-", fix="give the path of a file or folder; ./- is one of that name"
        )


def _meant(name: str, value: Any) -> Any:
    """A parameter's value with ``~`` as a shell expands it: not in ``--model=~/b``, nor in a configuration file."""
    if isinstance(value, list | tuple):
        return type(value)(_meant(name, one) for one in value)
    if isinstance(value, Path):
        return Path(os.path.expanduser(value))
    if isinstance(value, str) and name in _TEXTS:
        return typed_text(value)
    return os.path.expanduser(value) if isinstance(value, str) and name in _PATHS else value


def shares(text: str | None) -> tuple[float, ...]:
    """``--tensor-split`` as numbers. Raises :class:`OptionError`."""
    try:
        return tuple(float(share) for share in text.split(",")) if text else ()
    except ValueError:
        raise OptionError(expected="shares such as 2,1,1", got=repr(text), fix="write numbers and commas") from None


def with_cache(loading: LoadOptions, no_cache: bool) -> LoadOptions:
    """``loading`` as commands have it: with the user's cache, where they are not told of another or of none."""
    return dataclasses.replace(loading, cache=None if no_cache else loading.cache or True)


NoCacheOption = Annotated[bool, typer.Option("--no-cache", help="Keep nothing for later runs, and use nothing kept.")]
SplitSizeOption = Annotated[
    str, typer.Option("--split-size", metavar="SIZE", help="Split the LLM into GGUF files of at most this size.")
]
ReadingOption = Annotated[
    str | None,
    typer.Option(
        "--reading",
        metavar="|".join(READINGS),
        help="Whose anyres the bundle follows. By itself the code's that the model was trained with.",
    ),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Continue what a killed run of the same command left.")
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model", "-m", metavar="BUNDLE", help="Bundle folder, or name of 'list'; the demo model without it."
    ),
]
SystemOption = Annotated[str | None, typer.Option("--system", help="System message of the conversation.")]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", "--stats", help="Say on stderr where the model was placed, and what each stage took."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print the answer and nothing else.")]

ThreadsOption = Annotated[int, option(LoadOptions, "threads")]
ContextOption = Annotated[int, option(LoadOptions, "context")]
GpuLayersOption = Annotated[int, option(LoadOptions, "gpu_layers")]
SplitModeOption = Annotated[str | None, option(LoadOptions, "split_mode")]
DetailOption = Annotated[str, option(GenerationOptions, "detail")]
PictureTokensOption = Annotated[str | None, option(GenerationOptions, "picture_tokens")]
PromptEngineOption = Annotated[str, option(LoadOptions, "prompt_engine")]
KvTypeOption = Annotated[str, option(LoadOptions, "kv_type_k")]
