"""Forms of an answer as options: plain text whatever they were given as, and refused where they would run away."""

from __future__ import annotations

import json
import pickle
import time
from typing import Any

import pytest
from llava_edge.runtime import GenerationOptions
from llava_edge.runtime.answer_forms import MAX_DEPTH, MAX_PATTERN_BYTES, MAX_SCHEMA_BYTES
from llava_edge.runtime.errors import OptionError

PERSON = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"const": "é"}}, "required": ["b"]}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def doubled(times: int) -> dict[str, Any]:
    """Few dicts, and 2 to the ``times`` ways through them."""
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(times):
        schema = {"properties": {"a": schema, "b": schema}}
    return schema


def circle() -> dict[str, Any]:
    schema: dict[str, Any] = {}
    schema["items"] = schema
    return schema


def test_a_dict_and_its_text_are_the_same_plain_option() -> None:
    options = GenerationOptions(schema=PERSON)
    assert isinstance(options.schema, str)
    assert list(json.loads(options.schema)["properties"]) == ["b", "a"]
    assert json.loads(options.schema) == PERSON
    assert options == GenerationOptions(schema=json.dumps(PERSON)) == GenerationOptions(**vars(options))
    assert pickle.loads(pickle.dumps(options)) == options
    assert hash(options) == hash(GenerationOptions(schema=PERSON))


@pytest.mark.parametrize("schema", [{}, {"$comment": "anything"}, {"description": "x", "type": "object"}, nested(40)])
def test_what_json_schema_allows_is_taken(schema: dict[str, Any]) -> None:
    assert json.loads(str(GenerationOptions(schema=schema).schema)) == schema


NO_SCHEMAS: dict[str, tuple[Any, str]] = {
    "a file's name": ("person.json", "got 'person.json': Expecting value"),
    "cut JSON": ('{"type": "obj', "Unterminated string"),
    "a boolean": (True, "got True"),
    "a list": ([{"type": "integer"}], "got a list"),
    "JSON of a list": ("[]", r"got '\[\]'"),
    "bytes": (b"{}", "got a bytes"),
    "a set in it": ({"enum": {1, 2}}, "not JSON serializable"),
    "not a number": ({"minimum": float("nan")}, "not JSON compliant"),
    "infinity as text": ('{"minimum": 1e999}', "not JSON compliant"),
    "a circle": (circle(), "Circular reference"),
    "OpenAI's wrapper": ({"name": "x", "strict": True, "schema": PERSON}, "demands nothing, with the keys 'name', 's"),
    "an example": ({"name": "Ann", "age": 7}, "demands nothing, with the keys 'age', 'name'"),
    "draft 3": ({"$schema": "http://json-schema.org/draft-03/schema#", "type": "any"}, "draft 4 or later"),
    "half a character": ('{"const": "\ud800"}', "surrogates not allowed"),
}
LARGE: dict[str, tuple[Any, str]] = {
    "deep": (nested(MAX_DEPTH), f"at most {MAX_DEPTH} levels"),
    "very deep": (nested(100_000), f"at most {MAX_DEPTH} levels"),
    "very deep text": ('{"a":' * 40_000 + "1" + "}" * 40_000, f"at most {MAX_DEPTH} levels"),
    "long": ({"enum": ["x" * MAX_SCHEMA_BYTES]}, f"at most {MAX_SCHEMA_BYTES} bytes"),
    "long text": ('{"enum": ["' + "x" * MAX_SCHEMA_BYTES + '"]}', f"at most {MAX_SCHEMA_BYTES} bytes"),
    "doubled forty times": (doubled(40), f"at most {MAX_SCHEMA_BYTES} bytes"),
    "patterns": ({"pattern": "x" * (MAX_PATTERN_BYTES + 1)}, f"at most {MAX_PATTERN_BYTES} bytes"),
    "named by patterns": (
        {"patternProperties": {"x" * (MAX_PATTERN_BYTES + 1): {}}},
        f"at most {MAX_PATTERN_BYTES} bytes",
    ),
    "a large multiple": ({"multipleOf": 1_000_003}, "multiple of at most 100000"),
    "multiples together": ({"allOf": [{"multipleOf": 10_007}, {"multipleOf": 9973}]}, "got 99799811"),
    "a fine multiple": ({"allOf": [{"multipleOf": 0.001}, {"multipleOf": 997}]}, "got 997000"),
    "patterns at once": ({"allOf": [{"pattern": f".*{one}.*"} for one in range(30)]}, "at most 12 patterns"),
    "patterns along references": (
        {"$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}", "pattern": f"{i}"} for i in range(30)}, "$ref": "#/$defs/d0"},
        "at most 12 patterns",
    ),
    "more than are named": ({"type": "object", "required": ["a"], "minProperties": 3}, "got 2 above it"),
    "properties": ({"properties": {f"p{one}": {} for one in range(1001)}}, "at most 1000 properties"),
    "many patterns of names": ({"patternProperties": {f"^{n}$": {} for n in range(31)}}, "at most 30 patternProp"),
}


@pytest.mark.parametrize("name", [*NO_SCHEMAS, *LARGE])
def test_what_is_no_schema_or_too_large_is_refused_in_one_line(name: str) -> None:
    schema, said = (NO_SCHEMAS | LARGE)[name]
    began = time.process_time()
    with pytest.raises(OptionError, match=said) as caught:
        GenerationOptions(schema=schema)
    assert time.process_time() - began < 3
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_schema_near_the_limits_is_taken() -> None:
    GenerationOptions(schema=nested(MAX_DEPTH - 1))
    GenerationOptions(schema={"type": "object", "required": ["a", "b"], "minProperties": 3})
    GenerationOptions(schema={"multipleOf": 0.01, "minimum": 5, "items": {"multipleOf": 5}})
    GenerationOptions(schema={"items": [{"type": "string", "pattern": f"^{one}$"} for one in range(100)]})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"schema": {}, "regex": "a"}, "one of schema, regex and grammar; got schema and regex"),
        ({"regex": "a", "grammar": 'start: "a"'}, "got regex and grammar"),
        ({"schema": {}, "regex": "", "grammar": ""}, "got schema and regex and grammar"),
        ({"regex": ""}, "got an empty one"),
        ({"grammar": ""}, "got an empty one"),
        ({"regex": 7}, "regular expression as text; got 7"),
        ({"grammar": ["start"]}, "got a list"),
        ({"regex": "x" * (MAX_PATTERN_BYTES + 1)}, f"at most {MAX_PATTERN_BYTES} bytes"),
        ({"grammar": "x" * (MAX_PATTERN_BYTES + 1)}, f"at most {MAX_PATTERN_BYTES} bytes"),
        ({"regex": "\udcff"}, "surrogates not allowed"),
        ({"grammar": "start: A\nA: " + " & ".join(["/.*a.*/"] * 30)}, "at most 12 &"),
        ({"grammar": 'start: %json {"multipleOf": 1000003}'}, "multiple of at most"),
        ({"grammar": f"start: %json {json.dumps(nested(200))}"}, "levels"),
    ],
)
def test_other_forms_are_refused_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        GenerationOptions(**given)
    assert "\n" not in str(caught.value)
