"""Answers that have to be JSON: the three spellings of a schema, and Ollama's."""

from __future__ import annotations

import json
from typing import Any

from ..errors import RequestError
from ..settings import Limits
from .fields import Fields

ANY_OBJECT = {"type": "object"}


def response_format(fields: Fields, limits: Limits) -> str | None:
    """The schema text of ``response_format``, in any of the forms clients send; None where the answer is free."""
    given = fields.object("response_format")
    if given is None:
        return None
    kind = given.text("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return schema_text(given.get("schema") or ANY_OBJECT, given.where("schema"), limits)
    if kind == "json_schema":
        wrapper = given.object("json_schema")
        place = given if wrapper is None else wrapper
        if place.get("schema") is None:
            place.refuse("schema", "a JSON schema", code="invalid_schema")
        return schema_text(place.get("schema"), place.where("schema"), limits)
    return given.refuse("type", "one of text, json_object, json_schema", code="unsupported_parameter")


def ollama_format(fields: Fields, limits: Limits) -> str | None:
    """Ollama's ``format``: "json", or a schema."""
    given = fields.get("format")
    if given is None or given == "":
        return None
    return schema_text(ANY_OBJECT if given == "json" else given, fields.where("format"), limits)


def schema_text(schema: Any, param: str, limits: Limits) -> str:
    """A schema as text. Raises RequestError where it is no object, or too large."""
    if not isinstance(schema, dict):
        raise RequestError(
            expected=f"a JSON schema (an object) as {param}",
            got=type(schema).__name__,
            fix="send the schema itself",
            code="invalid_schema",
            param=param,
        )
    text = json.dumps(schema)
    if len(text) > limits.schema:
        raise RequestError(
            expected=f"a schema of at most {limits.schema // 1024} KiB",
            got=f"{len(text) // 1024} KiB",
            fix="send a smaller one",
            code="invalid_schema",
            param=param,
        )
    return text
