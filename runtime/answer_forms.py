"""The form that an answer may be held to: a JSON Schema, a regular expression, or a grammar.

Here is what can be said of one without the package that holds answers to it (``language/constraint``): that it is
plain text, and small enough that compiling it takes seconds and megabytes at most.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from .errors import OptionError, first_line

MAX_SCHEMA_BYTES = 256 * 1024
"""A schema's JSON text. llguidance goes down a chain of references on the stack, and this bounds the chain."""
MAX_PATTERN_BYTES = 64 * 1024
"""A regular expression, a grammar, or the patterns of a schema together: one of 256 KiB took 9 s and 1.7 GB."""
MAX_DEPTH = 100
"""Levels of a schema. llguidance's reader of JSON ends at 128 and puts levels of its own around."""
MAX_MULTIPLE = 100_000
"""Least common multiple of a schema's ``multipleOf``: an automaton has as many states, and 1 000 007 took 5 s."""
MAX_COMBINED = 12
"""Patterns that have to hold together: their cost doubles with each, and 24 took minutes."""
MAX_PATTERN_PROPERTIES = 30
"""Each is compared with each; 300 took 3 s."""
MAX_PROPERTIES = 1000
"""Of one object; the time grows with the square, and 8000 took 10 s."""

_ANNOTATIONS = frozenset(
    {
        "$anchor", "$comment", "$defs", "$id", "$schema", "$vocabulary", "contentEncoding", "contentMediaType",
        "default", "definitions", "deprecated", "description", "examples", "id", "readOnly", "title",
        "writeOnly", "x-guidance",
    }
)  # fmt: skip
"""Keywords of JSON Schema that demand nothing of a value."""
_ASSERTIONS = frozenset(
    {
        "$dynamicRef", "$recursiveRef", "$ref", "additionalItems", "additionalProperties", "allOf", "anyOf",
        "const", "contains", "contentSchema", "dependencies", "dependentRequired", "dependentSchemas", "else",
        "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "if", "items", "maxContains", "maxItems",
        "maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength", "minProperties",
        "minimum", "multipleOf", "not", "oneOf", "pattern", "patternProperties", "prefixItems", "properties",
        "propertyNames", "required", "then", "type", "unevaluatedItems", "unevaluatedProperties", "uniqueItems",
    }
)  # fmt: skip
"""Keywords of any draft that demand something."""


@dataclass(frozen=True)
class AnswerForm:
    """What an answer is held to: ``kind`` is the option's name, ``text`` its JSON, expression or Lark grammar."""

    kind: Literal["schema", "regex", "grammar"]
    text: str


def answer_form(schema: object, regex: object, grammar: object) -> AnswerForm | None:
    """The form that three options give, None where none does. Raises :class:`OptionError`."""
    given = {"schema": schema, "regex": regex, "grammar": grammar}
    given = {kind: value for kind, value in given.items() if value is not None}
    if len(given) > 1:
        raise OptionError(expected="one of schema, regex and grammar", got=" and ".join(given), fix="give one of them")
    if schema is not None:
        return AnswerForm("schema", schema_text(schema))
    if regex is not None:
        return AnswerForm("regex", _pattern("a regular expression", regex))
    if grammar is not None:
        _check_grammar(text := _pattern("a grammar in Lark's syntax", grammar))
        return AnswerForm("grammar", text)
    return None


def schema_text(schema: object) -> str:
    """A JSON Schema, given as a dict or as JSON text, as JSON text. Raises :class:`OptionError`."""
    try:
        value = schema
        if isinstance(schema, str):
            _check_size("a JSON Schema", schema, MAX_SCHEMA_BYTES)
            value = json.loads(schema)
        if not isinstance(value, dict):
            raise _no_schema(_shown(schema))
        text = _bounded_json(value)
    except OptionError:
        raise
    except RecursionError as error:
        raise _too_deep() from error
    except (TypeError, ValueError) as error:
        raise _no_schema(f"{_shown(schema)}: {first_line(error)}") from error
    _check_schema(value)
    return text


def _no_schema(got: str) -> OptionError:
    return OptionError(
        expected="a JSON Schema as a dict or as JSON text that begins with {", got=got, fix="give the schema itself"
    )


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str | bool | int | float) else f"a {type(value).__name__}"
    return text if len(text) <= 100 else text[:99] + "…"


def _too_deep() -> OptionError:
    return OptionError(expected=f"a JSON Schema of at most {MAX_DEPTH} levels", got="more", fix="use $defs and $ref")


def _bounded_json(value: dict[str, Any]) -> str:
    """JSON text, given up once it is too large: few dicts can refer to each other often enough to fill memory."""
    parts, size = [], 0
    for part in json.JSONEncoder(allow_nan=False).iterencode(value):
        parts.append(part)
        size += len(part)
        if size > MAX_SCHEMA_BYTES:
            raise _too_large("a JSON Schema", f"more than {MAX_SCHEMA_BYTES}", MAX_SCHEMA_BYTES)
    return "".join(parts)


def _pattern(what: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        got = "an empty one" if value == "" else _shown(value)
        raise OptionError(expected=f"{what} as text", got=got, fix="give it, or leave the option out")
    _check_size(what, value, MAX_PATTERN_BYTES)
    return value


def _check_size(what: str, text: str, limit: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise OptionError(expected=f"{what} in Unicode", got=first_line(error), fix="write it in UTF-8") from error
    if size > limit:
        raise _too_large(what, str(size), limit)


def _too_large(what: str, size: str, limit: int) -> OptionError:
    return OptionError(expected=f"{what} of at most {limit} bytes", got=size, fix="make it smaller")


def _check_schema(schema: dict[str, Any]) -> None:
    """Refuse what is no schema, of a draft that is not known, or grows beyond bounds when it is compiled."""
    keys = set(schema)
    if not keys & _ASSERTIONS and (unknown := sorted(keys - _ANNOTATIONS)):
        names = ", ".join(repr(name[:40]) for name in unknown[:3])
        raise _no_schema(f"an object that demands nothing, with the keys {names}")
    if re.search(r"/draft-0[0-35]/", str(schema.get("$schema"))):
        draft = _shown(schema["$schema"])
        raise OptionError(expected="a JSON Schema of draft 4 or later", got=draft, fix="write it in a later draft")
    nodes = list(_objects(schema))
    _check_counts(nodes)
    if (least := max(map(_unnamed, nodes))) > 1:
        raise OptionError(
            expected="minProperties at most one above the number of required names (llguidance may give a name twice)",
            got=f"{least} above it",
            fix="name what is required",
        )
    multiples = {node["multipleOf"] for node in nodes if isinstance(node.get("multipleOf"), int | float)} - {0}
    if (states := _states({Fraction(str(abs(one))) for one in multiples})) > MAX_MULTIPLE:
        raise OptionError(
            expected=f"multipleOf with a least common multiple of at most {MAX_MULTIPLE} (in the last decimal)",
            got=_shown(states),
            fix="use smaller ones, and check the number yourself",
        )


def _check_counts(nodes: list[dict[str, Any]]) -> None:
    """Raises :class:`OptionError` where llguidance would take minutes over a schema of these objects."""
    patterns = [node for node in nodes if isinstance(node.get("pattern"), str) or isinstance(node.get("format"), str)]
    named = [list(value) for node in nodes if isinstance(value := node.get("patternProperties"), dict)]
    size = sum(len(str(node.get("pattern", ""))) for node in patterns) + sum(len(one) for each in named for one in each)
    if size > MAX_PATTERN_BYTES:
        raise _too_large("a JSON Schema with patterns", str(size), MAX_PATTERN_BYTES)
    combined = any("allOf" in node for node in nodes) or any(
        {"$ref", "anyOf", "oneOf"} & set(node) for node in patterns
    )
    for what, count, limit in (
        ("patterns and formats where allOf, anyOf, oneOf or $ref combine them", len(patterns) * combined, MAX_COMBINED),
        ("patternProperties of an object", max(map(len, named), default=0), MAX_PATTERN_PROPERTIES),
        ("properties of an object", max(map(_properties, nodes), default=0), MAX_PROPERTIES),
    ):
        if count > limit:
            raise OptionError(expected=f"at most {limit} {what}", got=str(count), fix="make the JSON Schema simpler")


def _unnamed(node: dict[str, Any]) -> int:
    """How many properties an object must have beyond the required ones."""
    least, required = node.get("minProperties"), node.get("required")
    names = set(map(str, required)) if isinstance(required, list) else ()
    return int(least) - len(names) if isinstance(least, int) else 0


def _properties(node: dict[str, Any]) -> int:
    properties = node.get("properties")
    return len(properties) if isinstance(properties, dict) else 0


def _check_grammar(text: str) -> None:
    """Refuse a grammar that llguidance would take minutes over; the schemas in it are checked as others are."""
    if (count := text.count("&")) > MAX_COMBINED:
        raise OptionError(expected=f"at most {MAX_COMBINED} & in a grammar", got=str(count), fix="combine fewer")
    for found in re.finditer(r"%json\s*(?=\{)", text):
        try:
            _check_schema(json.JSONDecoder().raw_decode(text, found.end())[0])
        except RecursionError as error:
            raise _too_deep() from error
        except ValueError as error:
            if isinstance(error, OptionError):
                raise  # what is no JSON, llguidance names


def _states(multiples: set[Fraction]) -> int:
    """The least common multiple, counted in the last decimal that any of them has."""
    unit = math.lcm(*(one.denominator for one in multiples))
    return math.lcm(*(int(one * unit) for one in multiples))


def _objects(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object in a schema. Raises :class:`OptionError` where they are nested too deep."""
    level: list[Any] = [schema]
    for _ in range(MAX_DEPTH):
        yield from (node for node in level if isinstance(node, dict))
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise _too_deep()
