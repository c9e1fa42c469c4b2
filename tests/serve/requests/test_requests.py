"""Requests from outside: every form that clients send, and nothing but RequestError for all others."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llava_edge.runtime.errors import OptionError
from llava_edge.runtime.options import GenerationOptions, declared
from llava_edge.serve.errors import RequestError
from llava_edge.serve.requests.json_body import read_object
from llava_edge.serve.requests.ollama import read_ollama_chat, read_ollama_generate
from llava_edge.serve.requests.openai_chat import read_chat
from llava_edge.serve.requests.openai_responses import read_response
from llava_edge.serve.requests.sampling import sampling_options
from llava_edge.serve.requests.values import ChatRequest, Form, Message, SentPicture
from llava_edge.serve.settings import Limits

LIMITS = Limits()
DEFAULTS = GenerationOptions()
SMALL = dataclasses.replace(LIMITS, picture=100, pictures=2, messages=3, text=50, schema=60)
BYTES = b"\x89PNG picture"
BASE64 = base64.b64encode(BYTES).decode()
URI = f"data:image/png;base64,{BASE64}"
ID = "sha256-" + "a" * 64
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def find(name: str) -> bytes | None:
    return BYTES if name == ID else None


def chat(limits: Limits = LIMITS, **values: Any) -> ChatRequest:
    return read_chat({"messages": [{"role": "user", "content": "Hi"}], **values}, limits, find)


def content(*parts: Any, limits: Limits = LIMITS) -> tuple[Any, ...]:
    asked = read_chat({"messages": [{"role": "user", "content": list(parts)}]}, limits, find).asked
    return asked.messages[0].parts


def schema_of(request: ChatRequest) -> Any:
    form = request.asked.form
    assert form is not None
    assert form.kind == "schema"
    return json.loads(form.text)


def refused(read: Callable[[], Any]) -> RequestError:
    with pytest.raises(RequestError) as found:
        read()
    return found.value


PICTURE_PARTS = {
    "object": {"type": "image_url", "image_url": {"url": URI}},
    "string": {"type": "image_url", "image_url": URI},
    "input_image": {"type": "input_image", "image_url": URI},
    "upload": {"type": "image_url", "image_url": {"url": f"picture:{ID}"}},
    "wrong mime": {"type": "image_url", "image_url": {"url": f"data:text/html;base64,{BASE64}"}},
    "upper case": {"type": "image_url", "image_url": {"url": f"DATA:image/png;BASE64,{BASE64}"}},
    "no padding": {"type": "image_url", "image_url": {"url": URI.rstrip("=")}},
    "line breaks": {"type": "image_url", "image_url": {"url": URI[:30] + "\n" + URI[30:]}},
    "percent": {"type": "image_url", "image_url": {"url": "data:image/png,%89PNG%20picture"}},
}


@pytest.mark.parametrize("part", PICTURE_PARTS.values(), ids=PICTURE_PARTS.keys())
def test_pictures_in_all_forms(part: dict[str, Any]) -> None:
    assert content(part, {"type": "text", "text": "What?"}) == (SentPicture(BYTES), "What?")


@pytest.mark.parametrize(
    ("word", "means"), [("high", "high"), ("original", "high"), ("low", "low"), ("auto", "auto"), (None, None)]
)
def test_detail(word: str | None, means: str | None) -> None:
    inside = {"type": "image_url", "image_url": {"url": URI, "detail": word}}
    beside = {"type": "input_image", "image_url": URI, "detail": word}
    assert content(inside, beside) == (SentPicture(BYTES, means), SentPicture(BYTES, means))  # type: ignore[arg-type]


def test_parts_keep_their_order_and_texts_join() -> None:
    picture = PICTURE_PARTS["object"]
    texts = [{"type": "text", "text": text} for text in ("a", "b", "", "c")]
    assert content(*texts[:2], picture, *texts[2:], "d") == ("a\nb", SentPicture(BYTES), "c\nd")


def test_a_question_stands_behind_its_pictures() -> None:
    """As models are trained, also where a client sends the text first; only pictures between texts have a place."""
    picture, text = PICTURE_PARTS["object"], {"type": "text", "text": "What?"}
    sent = SentPicture(BYTES)
    assert content(text, picture, picture) == content(picture, picture, text) == (sent, sent, "What?")
    assert content(text, picture, text) == ("What?", sent, "What?")
    assert content(picture, text, picture) == (sent, "What?", sent)
    assert content(picture) == (sent,)


def test_roles_and_merging() -> None:
    turns = [
        {"role": "system", "content": "S"},
        {"role": "developer", "content": "D"},
        {"role": "user", "content": "one"},
        {"role": "user", "content": [{"type": "text", "text": "two"}]},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "tool_calls": []},
        {"role": "user", "content": "three", "name": "me"},
    ]
    assert chat(messages=turns).asked.messages == (
        Message("system", ("S\n\nD",)),
        Message("user", ("one\n\ntwo",)),
        Message("assistant", ("no",)),
        Message("user", ("three",)),
    )


def test_half_characters_are_replaced() -> None:
    body = read_object(b'{"messages": [{"role": "user", "content": "\\ud83d\\ude00 \\ud83d"}]}', depth=64)
    assert read_chat(body, LIMITS, find).asked.messages[0].text == "\N{GRINNING FACE} \N{REPLACEMENT CHARACTER}"


SAMPLING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({"max_tokens": None, "seed": None, "stop": None, "user": "u", "store": True}, {}),
    "max_tokens": ({"max_tokens": 7}, {"max_tokens": 7}),
    "newer name wins": ({"max_tokens": 7, "max_completion_tokens": 9}, {"max_tokens": 9}),
    "to the limit": ({"max_tokens": -1}, {"max_tokens": 2**31 - 1}),
    "float that is whole": ({"max_tokens": 7.0}, {"max_tokens": 7}),
    "more than fit": ({"max_tokens": 10**9}, {"max_tokens": 10**9}),
    "llama-server's name": ({"n_predict": 7}, {"max_tokens": 7}),
    "a new seed": ({"seed": -1}, {"seed": None}),
    "any seed": ({"seed": -2}, {"seed": 2**32 - 2}),
    "large seed": ({"seed": 2**40 + 3}, {"seed": 3}),
    "one stop": ({"stop": "x"}, {"stop": ("x",)}),
    "stops": ({"stop": ["x", "", "yy"]}, {"stop": ("x", "yy")}),
    "top_k off": ({"top_k": -1}, {"top_k": 0}),
    "numbers": ({"temperature": 0, "top_p": 0.5, "min_p": 0.1}, {"temperature": 0, "top_p": 0.5, "min_p": 0.1}),
    "other servers' name": ({"repetition_penalty": 1.1}, {"repeat_penalty": 1.1}),
    "empty refusals": ({"logit_bias": {}, "tools": [], "n": 1, "logprobs": False, "presence_penalty": 0}, {}),
    "tools that are not wanted": ({"tools": [{"type": "function"}], "tool_choice": "none"}, {}),
}


@pytest.mark.parametrize(("values", "means"), SAMPLING.values(), ids=SAMPLING.keys())
def test_sampling(values: dict[str, Any], means: dict[str, Any]) -> None:
    assert chat(**values).asked.sampling == means


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}},
        {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        {"type": "json_schema", "schema": SCHEMA},
        {"type": "json_object", "schema": SCHEMA},
    ],
)
def test_schemas_in_all_forms(response_format: dict[str, Any]) -> None:
    assert schema_of(chat(response_format=response_format)) == SCHEMA


def test_any_object_and_free_text() -> None:
    assert schema_of(chat(response_format={"type": "json_object"})) == {"type": "object"}
    assert chat(response_format={"type": "text"}).asked.form is None
    assert chat(response_format={}).asked.form is None


@pytest.mark.parametrize("name", ["schema", "json_schema", "guided_json"])
@pytest.mark.parametrize("given", [SCHEMA, json.dumps(SCHEMA)], ids=["object", "text"])
def test_schemas_under_other_servers_names(name: str, given: Any) -> None:
    request = chat(**{name: given})
    assert schema_of(request) == SCHEMA
    assert request.asked.form is not None
    assert request.asked.form.param == name


@pytest.mark.parametrize("name", ["regex", "guided_regex"])
def test_regular_expressions(name: str) -> None:
    assert chat(**{name: "[0-9]+"}).asked.form == Form("regex", "[0-9]+", name)


def picture_at(url: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


WRONG: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no messages": ({"messages": None}, "invalid_value", "messages"),
    "messages as text": ({"messages": "Hi"}, "invalid_value", "messages"),
    "empty": ({"messages": []}, "invalid_messages", "messages"),
    "nothing said": ({"messages": [{"role": "user", "content": ""}]}, "invalid_messages", "messages"),
    "no object": ({"messages": ["Hi"]}, "invalid_value", "messages[0]"),
    "assistant last": ({"messages": [{"role": "assistant", "content": "x"}]}, "invalid_messages", "messages"),
    "role": ({"messages": [{"role": "boss", "content": "x"}]}, "invalid_value", "messages[0].role"),
    "role list": ({"messages": [{"role": ["user"], "content": "x"}]}, "invalid_value", "messages[0].role"),
    "tool": ({"messages": [{"role": "tool", "content": "x"}]}, "unsupported_parameter", "messages[0].role"),
    "content": ({"messages": [{"role": "user", "content": 5}]}, "invalid_value", "messages[0].content"),
    "part": ({"messages": [{"role": "user", "content": [5]}]}, "invalid_value", "messages[0].content"),
    "part type": (
        {"messages": [{"role": "user", "content": [{"type": "x"}]}]},
        "invalid_value",
        "messages[0].content[0].type",
    ),
    "audio": (
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        "unsupported_parameter",
        "messages[0].content[0].type",
    ),
    "file id": (
        {"messages": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "unsupported_parameter",
        "messages[0].content[0].file_id",
    ),
    "assistant's picture": (
        {"messages": [{"role": "assistant", "content": [PICTURE_PARTS["object"]]}]},
        "unsupported_parameter",
        "messages[0].content[0].type",
    ),
    "http": (picture_at("http://127.0.0.1/x.png"), "unsupported_image_url", "messages[0].content[0].image_url.url"),
    "https": (picture_at("https://a.b/x.png"), "unsupported_image_url", "messages[0].content[0].image_url.url"),
    "file": (picture_at("file:///etc/passwd"), "unsupported_image_url", "messages[0].content[0].image_url.url"),
    "path": (picture_at("/etc/passwd"), "unsupported_image_url", "messages[0].content[0].image_url.url"),
    "unknown upload": (
        picture_at("picture:sha256-" + "b" * 64),
        "picture_not_found",
        "messages[0].content[0].image_url.url",
    ),
    "upload with a path": (
        picture_at("picture:sha256-../../x"),
        "picture_not_found",
        "messages[0].content[0].image_url.url",
    ),
    "no base64": (picture_at("data:image/png;base64,§§§"), "invalid_image", "messages[0].content[0].image_url.url"),
    "no data": (picture_at("data:image/png;base64,"), "invalid_image", "messages[0].content[0].image_url.url"),
    "no comma": (picture_at("data:image/png"), "invalid_image", "messages[0].content[0].image_url.url"),
    "url is no text": (picture_at(5), "invalid_value", "messages[0].content[0].image_url.url"),
    "max_tokens 0": ({"max_tokens": 0}, "invalid_value", "max_tokens"),
    "max_tokens text": ({"max_tokens": "7"}, "invalid_value", "max_tokens"),
    "max_tokens true": ({"max_tokens": True}, "invalid_value", "max_tokens"),
    "max_tokens -2": ({"max_tokens": -2}, "invalid_value", "max_tokens"),
    "max_tokens 1e12": ({"max_tokens": 1e12}, "invalid_value", "max_tokens"),
    "max_tokens infinite": ({"max_tokens": float("inf")}, "invalid_value", "max_tokens"),
    "temperature not a number": ({"temperature": float("nan")}, "invalid_value", "temperature"),
    "temperature true": ({"temperature": True}, "invalid_value", "temperature"),
    "top_k": ({"top_k": -5}, "invalid_value", "top_k"),
    "top_k large": ({"top_k": 2**31}, "invalid_value", "top_k"),
    "top_p": ({"top_p": 1.5}, "invalid_value", "top_p"),
    "repetition_penalty": ({"repetition_penalty": 0}, "invalid_value", "repetition_penalty"),
    "temperature": ({"temperature": -1}, "invalid_value", "temperature"),
    "temperature text": ({"temperature": "hot"}, "invalid_value", "temperature"),
    "seed": ({"seed": 1.5}, "invalid_value", "seed"),
    "large seed": ({"seed": 1e30}, "invalid_value", "seed"),
    "seed text": ({"seed": "5"}, "invalid_value", "seed"),
    "stop object": ({"stop": {"a": 1}}, "invalid_value", "stop"),
    "stops of stops": ({"stop": [["x"]]}, "invalid_value", "stop"),
    "stops none": ({"stop": [None]}, "invalid_value", "stop"),
    "stop": ({"stop": 5}, "invalid_value", "stop"),
    "stops": ({"stop": ["x"] * 17}, "invalid_value", "stop"),
    "long stop": ({"stop": "x" * 257}, "invalid_value", "stop"),
    "stream": ({"stream": "yes"}, "invalid_value", "stream"),
    "stream options": ({"stream_options": []}, "invalid_value", "stream_options"),
    "n": ({"n": 2}, "unsupported_parameter", "n"),
    "logit_bias": ({"logit_bias": {"5": 1}}, "unsupported_parameter", "logit_bias"),
    "logprobs": ({"logprobs": True}, "unsupported_parameter", "logprobs"),
    "tool_choice": ({"tool_choice": "required"}, "unsupported_parameter", "tool_choice"),
    "tool_choice object": ({"tool_choice": {"type": "function"}}, "unsupported_parameter", "tool_choice"),
    "modalities": ({"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
    "format": ({"response_format": {"type": "xml"}}, "unsupported_parameter", "response_format.type"),
    "no schema": ({"response_format": {"type": "json_schema"}}, "invalid_schema", "response_format.json_schema"),
    "a schema without its wrapper": (
        {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
        "invalid_schema",
        "response_format.json_schema.schema",
    ),
    "format as a word": ({"response_format": "json_object"}, "invalid_value", "response_format"),
    "two forms": ({"response_format": {"type": "json_object"}, "regex": "x"}, "invalid_schema", "regex"),
    "no regex": ({"regex": 5}, "invalid_value", "regex"),
    "empty regex": ({"regex": ""}, "invalid_schema", "regex"),
    "schema as a word": ({"schema": "object"}, "invalid_schema", "schema"),
    "schema cut off": ({"schema": '{"type":'}, "invalid_schema", "schema"),
    "schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}},
        "invalid_schema",
        "response_format.json_schema.schema",
    ),
    "grammar": ({"grammar": 'root ::= "x"'}, "unsupported_parameter", "grammar"),
    "model": ({"model": 5}, "invalid_value", "model"),
}


@pytest.mark.parametrize(("values", "code", "param"), WRONG.values(), ids=WRONG.keys())
def test_wrong_requests(values: dict[str, Any], code: str, param: str | None) -> None:
    error = refused(lambda: chat(**values))
    assert (error.code, error.param) == (code, param)
    assert error.as_dict()["error"].keys() == {"message", "type", "param", "code"}
    assert error.status in (400, 404)
    assert len(str(error)) < 600


@pytest.mark.parametrize(
    "values",
    [
        {"messages": [{"role": "user", "content": "x"}] * 4},
        {"messages": [{"role": "user", "content": "x" * 51}]},
        {"messages": [{"role": "user", "content": [PICTURE_PARTS["object"]] * 3}]},
        picture_at("data:;base64," + base64.b64encode(bytes(101)).decode()),
        picture_at("data:;base64," + "A" * 300),
        {"response_format": {"type": "json_object", "schema": {"description": "x" * 60}}},
    ],
)
def test_limits(values: dict[str, Any]) -> None:
    assert refused(lambda: chat(SMALL, **values)).expected.find("at most") >= 0
    chat(**values)


def test_an_error_repeats_little_of_the_input() -> None:
    error = refused(lambda: chat(model={"x": "\x1b[31m\n" * 1000}))
    assert len(str(error)) < 400
    assert str(error).isprintable()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"5",
        b"{",
        b"\xff{}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "c": 2, "b": 3}}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[" * 10_000_000,
    ],
    ids=lambda body: f"{body[:12]!r} {len(body)}",
)
def test_bodies_that_are_no_object(body: bytes) -> None:
    error = refused(lambda: read_object(body, depth=64))
    assert error.code == "invalid_json"
    assert len(str(error)) < 400


def test_a_mark_in_front_is_none_of_the_text() -> None:
    assert read_object(b'\xef\xbb\xbf{"a": 1.5}', depth=64) == {"a": 1.5}


def test_depth_is_counted_as_people_count() -> None:
    read_object(b'{"a":' * 64 + b"1" + b"}" * 64, depth=64)


def test_responses() -> None:
    given = {
        "instructions": "S",
        "input": [
            {"type": "reasoning", "summary": []},
            {"role": "user", "content": [{"type": "input_image", "image_url": URI, "detail": "low"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
            {"role": "user", "content": "b"},
        ],
        "max_output_tokens": 5,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
        "stream": True,
    }
    request = read_response(given, LIMITS, find)
    assert request.asked.messages == (
        Message("system", ("S",)),
        Message("user", (SentPicture(BYTES, "low"),)),
        Message("assistant", ("a",)),
        Message("user", ("b",)),
    )
    assert request.asked.sampling == {"max_tokens": 5}
    assert schema_of(request) == SCHEMA
    assert request.stream
    assert read_response({"input": "Hi"}, LIMITS, find).asked.messages == (Message("user", ("Hi",)),)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"input": 5},
        {"input": []},
        {"input": "x", "previous_response_id": "r"},
        {"input": [{"type": "function_call_output"}]},
        {"input": "x", "text": {"format": {"type": "xml"}}},
        {"input": "x", "instructions": 5},
    ],
)
def test_wrong_responses(values: dict[str, Any]) -> None:
    refused(lambda: read_response(values, LIMITS, find))


def test_ollama_chat() -> None:
    given = {
        "model": "m",
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi", "images": [BASE64, URI]}],
        "options": {"num_predict": 5, "temperature": 0.5, "num_ctx": 4096, "stop": ["x"]},
        "format": SCHEMA,
        "keep_alive": "5m",
    }
    request = read_ollama_chat(given, LIMITS, find)
    assert request.asked.messages[1].parts == (SentPicture(BYTES), SentPicture(BYTES), "Hi")
    assert request.asked.sampling == {"max_tokens": 5, "temperature": 0.5, "stop": ("x",)}
    assert schema_of(request) == SCHEMA
    assert (request.stream, request.keep_alive) == (True, 300.0)
    assert read_ollama_chat({"model": "m"}, LIMITS, find).asked.messages == ()


def test_ollama_generate() -> None:
    given = {"prompt": "Hi", "system": "S", "images": [BASE64], "stream": False, "format": "json"}
    request = read_ollama_generate(given, LIMITS, find)
    assert request.asked.messages == (Message("system", ("S",)), Message("user", (SentPicture(BYTES), "Hi")))
    assert schema_of(request) == {"type": "object"}
    assert not request.stream


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (0, 0.0),
        (-1, -1.0),
        ("10s", 10.0),
        ("1h", 3600.0),
        ("-1", -1.0),
        ("250ms", 0.25),
        ("1h30m", 5400.0),
        ("-1s", -1.0),
    ],
)
def test_keep_alive(given: Any, seconds: float) -> None:
    assert read_ollama_generate({"keep_alive": given}, LIMITS, find).keep_alive == seconds


@pytest.mark.parametrize(
    "values",
    [
        {"keep_alive": "soon"},
        {"keep_alive": True},
        {"keep_alive": "5m soon"},
        {"images": "x", "prompt": "p"},
        {"images": [5], "prompt": "p"},
        {"images": ["no base64 §"], "prompt": "p"},
        {"options": [], "prompt": "p"},
        {"options": {"temperature": "x"}, "prompt": "p"},
        {"format": "xml", "prompt": "p"},
        {"format": [1], "prompt": "p"},
        {"raw": True, "prompt": "p"},
        {"context": [1], "prompt": "p"},
        {"prompt": 5},
        {"options": {"num_predict": -3}, "prompt": "p"},
        {"options": {"num_predict": 0}, "prompt": "p"},
        {"options": {"num_ctx": "4096"}, "prompt": "p"},
    ],
)
def test_wrong_ollama(values: dict[str, Any]) -> None:
    refused(lambda: read_ollama_generate(values, LIMITS, find))


@pytest.mark.parametrize("given", [-1, -2])
def test_ollamas_words_for_no_limit(given: int) -> None:
    request = read_ollama_generate({"prompt": "x", "options": {"num_predict": given}}, LIMITS, find)
    assert request.asked.sampling == {"max_tokens": 2**31 - 1}


BOUNDED = [name for name, option in declared(GenerationOptions).items() if option.bounds and name not in ("seed",)]


@pytest.mark.parametrize("name", BOUNDED)
def test_the_bounds_are_those_of_the_library(name: str) -> None:
    """Each bound is taken by both, and what is beyond it by none; below 0 requests have words of their own."""
    low, high = declared(GenerationOptions)[name].bounds or (0, 0)
    for value in (low, high):
        assert GenerationOptions(**{name: value}) == sampling_options(chat(**{name: value}).asked.sampling, DEFAULTS)
    for value in (high + 1, high * 1e9, *([low - 1] if low not in (0, 1) else [])):
        assert refused(lambda value=value: chat(**{name: value})).param == name  # type: ignore[misc]
        with pytest.raises(OptionError):
            GenerationOptions(**{name: value})


def test_a_file_id_is_the_id_of_an_upload() -> None:
    assert content({"type": "input_image", "file_id": ID, "detail": "low"}, "What?") == (
        SentPicture(BYTES, "low"),
        "What?",
    )
    assert content({"type": "image_url", "image_url": {"url": ID}}) == (SentPicture(BYTES),)


NAMES = st.sampled_from(
    [
        "model",
        "messages",
        "role",
        "content",
        "type",
        "text",
        "image_url",
        "url",
        "detail",
        "stream",
        "stream_options",
        "include_usage",
        "max_tokens",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repeat_penalty",
        "response_format",
        "json_schema",
        "schema",
        "n",
        "tools",
        "tool_choice",
        "modalities",
        "input",
        "instructions",
        "images",
        "prompt",
        "system",
        "options",
        "num_predict",
        "format",
        "keep_alive",
        "user",
        "assistant",
        "input_image",
    ]
)
WORDS = st.one_of(
    NAMES,
    st.sampled_from(["user", "system", "text", "image_url", "low", "json_object", URI, "picture:" + ID, "5m"]),
    st.text(),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=5)),
    max_leaves=12,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "assistant"])}, optional={"content": VALUES}),
    max_size=4,
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=8).flatmap(
    lambda body: st.one_of(st.just(body), MESSAGES.map(lambda messages: {**body, "messages": messages}))
)
READERS = {
    "chat": read_chat,
    "response": read_response,
    "ollama chat": read_ollama_chat,
    "generate": read_ollama_generate,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
@settings(max_examples=200)
@given(body=BODIES)
def test_nothing_but_request_errors_comes_out(reader: Any, body: dict[str, Any]) -> None:
    error = None
    try:
        request = reader(body, SMALL, find)
    except RequestError as found:
        error = found
    if error is not None:
        assert len(str(error)) < 700
        json.dumps(error.as_dict(), ensure_ascii=False).encode()
    else:
        assert sum(len(message.text) for message in request.asked.messages) <= SMALL.text + 10
        "".join(message.text for message in request.asked.messages).encode()


@settings(max_examples=200)
@given(body=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    try:
        value = read_object(body, depth=3)
    except RequestError as error:
        value = error.as_dict()
    assert isinstance(value, dict)
