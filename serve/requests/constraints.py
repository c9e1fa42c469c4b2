"""Answers that have to have a form: the spellings of a JSON schema and of a regular expression."""

from __future__ import annotations

import json
from typing import Any

from ..errors import RequestError, shown
from ..settings import Limits
from .fields import Fields
from .known_fields import REGEXES, SCHEMAS
from .values import Form

ANY_OBJECT = {"type": "object"}
KINDS = ("text", "json_object", "json_schema")


def chat_form(fields: Fields, limits: Limits) -> Form | None:
    """What a chat's answer is held to, in any of the forms clients send; None where the answer is free."""
    found = [response_format(fields, limits)]
    found += [_schema(fields, name, limits) for name in SCHEMAS if fields.get(name) is not None]
    found += [_regex(fields, name) for name in REGEXES if fields.get(name) is not None]
    forms = [form for form in found if form is not None]
    if len(forms) > 1:
        raise RequestError(
            expected="one form that the answer has",
            got=" and ".join(form.param for form in forms),
            fix="send one of them",
            code="invalid_schema",
            param=forms[1].param,
        )
    return forms[0] if forms else None


def response_format(fields: Fields, limits: Limits) -> Form | None:
    """``response_format`` of a chat."""
    given = _format(fields, "response_format")
    if given is None:
        return None
    if given.get("type") == "json_object":
        return _schema(given, "schema", limits, ANY_OBJECT)
    wrapper = given.object("json_schema")
    if wrapper is None and given.get("schema") is not None:
        return _schema(given, "schema", limits)
    if wrapper is None:
        given.refuse("json_schema", 'an object {"name": …, "schema": …}', fix="send it", code="invalid_schema")
    if wrapper.get("schema") is None:
        fix = 'put the schema into it: {"name": …, "schema": …}'
        wrapper.refuse("schema", "a JSON schema", fix=fix, code="invalid_schema")
    return _schema(wrapper, "schema", limits)


def responses_format(text: Fields, limits: Limits) -> Form | None:
    """``text.format`` of a response."""
    given = _format(text, "format")
    if given is None:
        return None
    if given.get("type") == "json_object":
        return _schema(given, "schema", limits, ANY_OBJECT)
    if given.get("schema") is None:
        given.refuse("schema", "a JSON schema", fix="put it beside type and name", code="invalid_schema")
    return _schema(given, "schema", limits)


def ollama_format(fields: Fields, limits: Limits) -> Form | None:
    """Ollama's ``format``: "json", or a schema."""
    given = fields.get("format")
    if given is None or given == "":
        return None
    if isinstance(given, str) and given != "json":
        fields.refuse("format", '"json" or a JSON schema', fix="send one of them", code="invalid_schema")
    return Form("schema", schema_text(ANY_OBJECT if given == "json" else given, "format", limits), "format")


def _format(fields: Fields, name: str) -> Fields | None:
    """The object that names a kind of answer, if it names one that has a form."""
    if isinstance(fields.get(name), str):
        fields.refuse(name, "an object", fix='write {"type": "json_object"} or the like')
    given = fields.object(name)
    if given is None or not given.values:
        return None
    if given.get("type") not in KINDS:
        given.refuse("type", f"one of {', '.join(KINDS)}", fix="choose one", code="unsupported_parameter")
    return None if given.get("type") == "text" else given


def _schema(fields: Fields, name: str, limits: Limits, otherwise: Any = None) -> Form:
    given = fields.get(name)
    return Form(
        "schema", schema_text(otherwise if given is None else given, fields.where(name), limits), fields.where(name)
    )


def _regex(fields: Fields, name: str) -> Form:
    text = fields.text(name)
    if not text:
        fields.refuse(name, "a regular expression", code="invalid_schema")
    return Form("regex", text, fields.where(name))


def schema_text(schema: Any, param: str, limits: Limits) -> str:
    """A schema, given as an object or as its JSON text, as text. Raises RequestError where it is none, or too large."""
    value = schema
    if isinstance(schema, str) and schema.lstrip().startswith("{"):
        try:
            value = json.loads(schema)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, dict):
        raise RequestError(
            expected=f"a JSON schema (an object) as {param}",
            got=shown(schema),
            fix="send the schema itself",
            code="invalid_schema",
            param=param,
        )
    text = json.dumps(value)
    if len(text) > limits.schema:
        raise RequestError(
            expected=f"a schema of at most {limits.schema // 1024} KiB",
            got=f"{len(text) // 1024} KiB",
            fix="send a smaller one",
            code="invalid_schema",
            param=param,
        )
    return text
