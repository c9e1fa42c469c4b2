"""``/set``: sampling options by name and text, held to the ranges of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from ...runtime.errors import OptionError
from ...runtime.options import GenerationOptions, declared, types_of

DEFAULT_WORDS = ("default", "none")
"""Values that set an option back."""
_SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


def option_names() -> list[str]:
    """What can be set, spelt as on the command line without its dashes."""
    return [_spelt(name) for name in declared(GenerationOptions)]


def changed(sampling: GenerationOptions, words: Sequence[str]) -> tuple[GenerationOptions, str]:
    """``sampling`` with what ``words`` set, and what there is to say: an option's value, or all of them.

    ``words`` are an option and its value, the option alone to see it, or nothing. Raises :class:`OptionError`.
    """
    if not words:
        return sampling, "\n".join(_line(sampling, field.name) for field in fields(sampling))
    name = _known(words[0])
    if len(words) > 1:
        sampling = replace(sampling, **{name: _value(name, words[1:])})
    return sampling, _line(sampling, name)


def _spelt(name: str) -> str:
    return (declared(GenerationOptions)[name].flag or name).removeprefix("--").replace("_", "-")


def _known(word: str) -> str:
    """The field that ``word`` means: ``top_p``, ``top-p`` and ``--top-p`` are one."""
    by_spelling = {_spelt(name): name for name in declared(GenerationOptions)}
    wanted = word.lower().removeprefix("--").replace("_", "-")
    if wanted in by_spelling:
        return by_spelling[wanted]
    near = get_close_matches(wanted, by_spelling, 1)
    raise OptionError(
        expected=f"an option among {', '.join(by_spelling)}",
        got=repr(word[:60]),
        fix=f"did you mean {near[0]}?" if near else "choose one of those",
    )


def _value(name: str, words: Sequence[str]) -> Any:
    hint = types_of(GenerationOptions)[name]
    kinds = set(get_args(hint)) or {hint}
    defaults = (*DEFAULT_WORDS, "all") if name == "picture_tokens" else DEFAULT_WORDS
    if len(words) == 1 and words[0].lower() in defaults:
        return getattr(GenerationOptions, name)
    if get_origin(hint) is tuple:
        return tuple(words)
    if len(words) > 1:
        raise OptionError(expected=f"one value for {_spelt(name)}", got=f"{len(words)}", fix="give one, in quotes")
    text = words[0]
    if bool in kinds:
        return _SWITCH.get(text.lower(), text)
    number = _number(text)
    if int in kinds and isinstance(number, float):
        raise OptionError(
            expected=f"a whole number for {_spelt(name)}", got=text[:60], fix="write it in digits alone, such as 1000"
        )
    return text if number is None or not kinds & {int, float} else float(text) if float in kinds else number


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return None


def _line(sampling: GenerationOptions, name: str) -> str:
    value = getattr(sampling, name)
    shown = " ".join(map(repr, value)) if isinstance(value, tuple) else value
    unset = "all" if name == "picture_tokens" else "none"
    return f"{_spelt(name)} {unset if shown in (None, '') else shown}"
