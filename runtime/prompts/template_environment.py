"""jinja2 as transformers sets it up for chat templates, in bounded time and memory.

A template comes with the checkpoint and may be anybody's: it runs in jinja2's sandbox, every loop and call counts, and
what could grow is measured before it does. Source of the filters and names: transformers' ``chat_template_utils``.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import jinja2.utils
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

STEPS = 2**20
"""Rounds of loops and calls of macros in one rendering."""
SECONDS = 1.0
"""Processor time of one rendering."""
LONGEST = 2**22
"""Characters of a text, entries of a list. A context of a million positions has about as many characters."""
_GROWTH = 2**26
"""Bound of what one filter or method could make, estimated from what goes in."""
_GROWING = frozenset(
    [
        "batch",
        "center",
        "expandtabs",
        "format",
        "format_map",
        "indent",
        "join",
        "ljust",
        "generate_lorem_ipsum",
        "replace",
        "rjust",
        "slice",
        "sum",
        "tojson",
        "translate",
        "wordwrap",
        "zfill",
    ]
)
_WIDE = re.compile(r"%[^%a-zA-Z]*(?:\d{6}|\*)|[:{][^}]*(?:\d{6}|:[^}]*\{)")
"""A width in a format that would make a long text of a short one."""


class TemplateTooLarge(jinja2.TemplateError):
    """A template that would take more time or memory than one may."""


class _Budget:
    """What is left of one rendering's steps and time."""

    def __init__(self) -> None:
        self.steps = STEPS
        self.end = time.thread_time() + SECONDS

    def take(self) -> None:
        self.steps -= 1
        if self.steps < 0 or time.thread_time() > self.end:
            raise TemplateTooLarge(f"more than {STEPS} steps or {SECONDS:g} s")


_budget: ContextVar[_Budget | None] = ContextVar("budget", default=None)
_clock: ContextVar[datetime.datetime | None] = ContextVar("clock", default=None)


@contextmanager
def rendering_at(clock: datetime.datetime | None) -> Iterator[None]:
    """Let templates that ask for the date see ``clock`` (local time); None is the clock on the wall."""
    token = _clock.set(clock)
    try:
        yield
    finally:
        _clock.reset(token)


def asks_for_the_date(template: str) -> bool:
    """Whether what ``template`` renders may depend on when it does."""
    return "strftime_now" in template


@functools.lru_cache(maxsize=8)
def compiled(source: str) -> jinja2.Template:
    """A template compiled once: compiling takes longer than all else in a prompt. Raises what jinja2 and Python do."""
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    tree = _Counted().visit(environment.parse(source))
    tree.set_environment(environment)
    return jinja2.Template.from_code(environment, environment.compile(tree), environment.make_globals(None))


def rendered(source: str, **names: Any) -> str:
    """``source`` rendered with ``names``. Raises jinja2's errors, and Python's own."""
    token = _budget.set(_Budget())
    try:
        return compiled(source).render(**names)
    finally:
        _budget.reset(token)


class _Counted(NodeTransformer):
    """Counts each round of a loop and each call of a macro, and measures what ``~`` makes."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._counting(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._counting(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._counting(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("concatenate", node.nodes, node.lineno)

    def _counting(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("count", [], node.lineno), lineno=node.lineno))
        return node  # type: ignore[no-any-return]


def _call(name: str, arguments: list[nodes.Expr], line: int) -> nodes.Call:
    function = nodes.EnvironmentAttribute(name, lineno=line)
    return nodes.Call(function, arguments, [], None, None, lineno=line)


def _bounded_concat(parts: Iterable[str]) -> str:
    found, length = [], 0
    for part in parts:
        found.append(part)
        length += len(part)
        if length > LONGEST:
            raise TemplateTooLarge(f"a text of more than {LONGEST} characters")
    return "".join(found)


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(_bounded_concat)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters["tojson"] = _tojson
        self.filters.update({name: _bounded(name, one) for name, one in self.filters.items()})
        self.globals.update(
            raise_exception=_raise_exception,
            strftime_now=_strftime_now,
            dict=_Dictionary(),
            namespace=_Namespace,
        )

    def count(self) -> None:
        """Take a step."""
        _take_step()

    def concatenate(self, *parts: Any) -> str:
        """What ``~`` makes."""
        return _bounded_concat(map(str, parts))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # jinja2's own trick
        """Call something, after a look at what it could make."""
        __self.count()
        name = getattr(__obj, "__name__", "")
        if name in _GROWING:
            method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps str.format
            _check_growth(name, getattr(method, "__self__", ""), args, kwargs)
        return _checked(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute ``left operator right``, after a look at what it could make."""
        self.count()
        if operator == "**" and (abs(right) > 64 or abs(left) > 2**64):
            raise TemplateTooLarge("a power of large numbers")
        if operator == "*":
            if isinstance(left, int) and isinstance(right, int):
                if left.bit_length() + right.bit_length() > 2**12:
                    raise TemplateTooLarge("a product of large numbers")
            elif _size(left) * _size(right) > _GROWTH:
                raise TemplateTooLarge("a repetition that is too long")
        if operator == "%" and isinstance(left, str):
            _check_growth("format", left, right if isinstance(right, tuple) else (right,), {})
        return _checked(super().call_binop(context, operator, left, right))


def _bounded(name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that counts as a step, and measures what it makes; jinja2's marks on it are kept."""
    leading = 1 if hasattr(filter_, "jinja_pass_arg") else 0

    @functools.wraps(filter_)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _take_step()
        if name in _GROWING and args[leading:]:
            _check_growth(name, args[leading], args[leading + 1 :], kwargs)
        return _checked(filter_(*args, **kwargs))

    return bounded


def _check_growth(name: str, subject: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    given = [*args, *kwargs.values()]
    if name in ("format", "format_map"):
        if isinstance(subject, str) and _WIDE.search(subject):
            raise TemplateTooLarge("a format that is too wide")
        given = [one for one in given if not isinstance(one, int)]  # numbers that are shown, not widths
    if (1 + _size(subject)) * (1 + sum(map(_size, given))) > _GROWTH:
        raise TemplateTooLarge(f"{name} of something too long")


def _size(value: Any) -> int:
    """How much ``value`` could make more: a text's length, a number itself, a list's texts."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int | float):
        return int(min(abs(value), 2**62)) if value == value else 0
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return len(value) + sum(len(one) for one in value if isinstance(one, str | list | tuple | dict))
    return 1


def _checked(value: Any) -> Any:
    if isinstance(value, Iterator):
        return _bounded_items(value)
    if isinstance(value, str | list | tuple | dict) and len(value) > LONGEST:
        raise TemplateTooLarge(f"something longer than {LONGEST}")
    return value


def _bounded_items(items: Iterator[Any]) -> Iterator[Any]:
    """``items`` one after the other, each of them a step, and not more than a list or a text may have."""
    size = 0
    for one in items:
        size += 1 + (len(one) if isinstance(one, str) else 0)
        if size > LONGEST:
            raise TemplateTooLarge(f"a list of more than {LONGEST} characters")
        _take_step()
        yield one


def _take_step() -> None:
    budget = _budget.get()
    if budget is not None:
        budget.take()


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """transformers' filter: jinja2's own would spell ``<``, ``>``, ``&`` and ``'`` as escapes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format_: str) -> str:
    if len(format_) > 1000:
        raise TemplateTooLarge("a date of more than 1000 characters")
    return (_clock.get() or datetime.datetime.now()).strftime(format_)


class _Dictionary:
    """``dict`` without the attributes of a type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """A new dictionary."""
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """A new dictionary of one value."""
        return dict.fromkeys(*args, **kwargs)


class _Namespace(jinja2.utils.Namespace):
    """jinja2's namespace, which as in transformers takes no names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that namespace(self=...) works
        self, *rest = args
        names = dict(*rest, **kwargs)
        for name in names:
            _check_attribute(name)
        jinja2.utils.Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)


def _check_attribute(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"an attribute {name!r} on a namespace")
