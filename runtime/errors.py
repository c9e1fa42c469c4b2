"""What goes wrong, said in one line: what was expected, what was found, what to do."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any


class LlavaEdgeError(Exception):
    """Base of every error a user can cause or mend.

    Each subclass also derives from the builtin an application would catch, so
    ``except ValueError`` keeps working for people who do not import this module.
    """

    def __init__(self, *, expected: str, got: str, fix: str) -> None:
        self.expected = expected
        self.got = got
        self.fix = fix
        super().__init__(f"expected {expected}; got {got}; {fix}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Made again as it is, whatever a subclass's constructor takes: errors are copied, and cross processes."""
        return _made_again, (type(self), self.args), self.__dict__


def _made_again(kind: type[LlavaEdgeError], arguments: tuple[Any, ...]) -> LlavaEdgeError:
    error = kind.__new__(kind)
    error.args = arguments
    return error


class ImageError(LlavaEdgeError, ValueError):
    """A picture that can't be read, is too large, or too thin to be tiled."""


class BundleError(LlavaEdgeError, ValueError):
    """A bundle that is missing, altered, of another schema, or not safe to open."""


class CheckpointError(LlavaEdgeError, ValueError):
    """A checkpoint that can't be exported, or trained further."""


class ContextError(LlavaEdgeError, ValueError):
    """A prompt that does not fit the context."""


class OptionError(LlavaEdgeError, ValueError):
    """An option outside its range, or one this build does not have."""


class DataError(LlavaEdgeError, ValueError):
    """A data set that can't be found or read, or a record of it that can't be used."""


class TemplateError(LlavaEdgeError, ValueError):
    """A chat template that can't be rendered for the given messages."""


class NativeError(LlavaEdgeError, RuntimeError):
    """llama.cpp or onnxruntime refused a file or failed while it ran."""


class EngineCrashed(NativeError):
    """The engine's own process ended by itself in the middle of a request; the next request starts another one.

    ``retry_after`` are seconds before which that is refused; 0 where it may come at once.
    """

    def __init__(self, *, expected: str, got: str, fix: str, retry_after: int = 0) -> None:
        self.retry_after = retry_after
        super().__init__(expected=expected, got=got, fix=fix)


class WorkerError(LlavaEdgeError, ConnectionError):
    """A worker that can't be reached, or that left in the middle of an answer."""


class MissingExtraError(LlavaEdgeError, ImportError):
    """A package that one of the extras installs is not there."""


class StorageError(LlavaEdgeError, OSError):
    """A file that can't be written: disk full, no permission, something in the way."""


class JudgeError(LlavaEdgeError, ConnectionError):
    """A judge that can't be reached, or that refuses the requests."""


class Cancelled(Exception):
    """The caller asked to stop; nothing is broken and nothing was kept half-done."""


class BusyError(LlavaEdgeError, RuntimeError):
    """A second request came while the model was still answering the first."""


def first_line(error: BaseException) -> str:
    """The first line of what another library's ``error`` says, at most 200 characters, or the name of its class.

    Of an operating system's error its words alone, without number and path.
    """
    words = getattr(error, "strerror", None) if isinstance(error, OSError) else None
    lines = str(words or error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def shown(value: object) -> str:
    """Part of a file or a command line as errors repeat it: in one line, at most 200 characters, nothing invisible."""
    text = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in str(value)[:201])
    return text if len(text) <= 200 else f"{text[:199]}…"


_ADDRESS = re.compile(r"\b([a-z][a-z0-9+.-]*://)([^\s'\"]+)", re.IGNORECASE)
_USER = re.compile(r"(?<![\w/])[^\s/:@'\"]+:(?![^\s@]*=\s*[\d.]+[MGT]i?B?@)[^\s@/'\"]+@(?=[\w\[])")
_TOKEN = re.compile(r"\b(hf_|sk-|gh[a-z]_)[\w-]{16,}")
"""Addresses; USER:PASSWORD@HOST without a scheme, where a device is HOST:PORT=24G@GB/s; tokens by how they begin."""


def without_credentials(text: str) -> str:
    """``text`` without what would let its reader in: passwords and queries of addresses, tokens."""
    text = _USER.sub("…@", _ADDRESS.sub(lambda match: match[1] + _public(match[2]), text))
    return _TOKEN.sub(r"\1…", text)


def _public(address: str) -> str:
    """An address behind ``://`` without user, password, query and fragment."""
    _, at, behind = address.rpartition("@")
    shown_part = re.split(r"[?#]", behind, maxsplit=1)
    return ("…@" if at else "") + shown_part[0] + ("?…" if shown_part[1:] and shown_part[1] else "")


def listed(names: Collection[object]) -> str:
    """At most ten of ``names`` as errors repeat them, and how many more there are; 200 characters and that number."""
    kept = list(names)[:10]
    while len(text := ", ".join(map(shown, kept))) > 200 and kept[1:]:
        kept.pop()
    more = len(names) - len(kept)
    return shown(text) + (f" and {more} more" if more else "")


def amount(count: int, one: str, several: str = "") -> str:
    """How many there are of something, such as "1 picture" and "2 pictures"."""
    return f"{count} {one if count == 1 else several or one + 's'}"


OURS = "llava_edge"
PACKAGES = {"PIL": "pillow", "llama_cpp": "llama-cpp-python"}
"""Packages that are installed under another name than they are imported by."""


@contextmanager
def needing_extra(*extras: str) -> Iterator[None]:
    """Say an import that fails in here as :class:`MissingExtraError`; any one of ``extras`` installs the package.

    A package that is there and can't be imported is said to be broken. A module of our own that is missing is a fault
    of ours, and passes.
    """
    try:
        yield
    except LlavaEdgeError:
        raise
    except ImportError as error:
        if (error.name or "").partition(".")[0] == OURS:
            raise
        raise missing_extra(error, *extras) from error


def missing_extra(error: ImportError, *extras: str) -> MissingExtraError:
    """A package that is not there, or not whole, with the ``extras`` that install it; without any, by its own name."""
    name = (error.name or "").partition(".")[0]
    installs = " or ".join(f'"llava-edge[{extra}]"' for extra in extras) or PACKAGES.get(name, name) or "PACKAGE"
    if isinstance(error, ModuleNotFoundError) and name == error.name:
        fix = f"install the extra: pip install {installs}" if extras else f"pip install {installs}"
        return MissingExtraError(expected=f"the package {name}", got="no such package", fix=fix)
    return MissingExtraError(
        expected=f"the package {name} to be whole" if name else "packages that are whole",
        got=first_line(error),
        fix=f"install it again: pip install --force-reinstall {installs}",
    )
