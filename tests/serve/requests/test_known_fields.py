"""Fields with an effect are followed or refused by name, never ignored; the tables are what the readers read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llava_edge.serve.errors import RequestError
from llava_edge.serve.requests import known_fields as known
from llava_edge.serve.requests.fields import Fields
from llava_edge.serve.requests.known_fields import PLACES, Place, check_fields
from llava_edge.serve.requests.ollama import read_ollama_chat, read_ollama_generate
from llava_edge.serve.requests.openai_chat import read_chat
from llava_edge.serve.requests.openai_responses import read_response
from llava_edge.serve.requests.values import ChatRequest
from llava_edge.serve.settings import Limits

LIMITS = Limits()
TURNS = [{"role": "user", "content": "Hi"}]
ASKED: dict[str, tuple[Any, dict[str, Any]]] = {
    "chat": (read_chat, {"messages": TURNS}),
    "responses": (read_response, {"input": "Hi"}),
    "ollama chat": (read_ollama_chat, {"messages": TURNS}),
    "generate": (read_ollama_generate, {"prompt": "Hi"}),
}

OBJECTS = {
    "chat": known.CHAT,
    "responses": known.RESPONSES,
    "ollama chat": known.OLLAMA_CHAT,
    "generate": known.OLLAMA_GENERATE,
}


def read(dialect: str, **values: Any) -> ChatRequest:
    reader, asked = ASKED[dialect]
    return reader({**asked, **values}, LIMITS, lambda _: None)  # type: ignore[no-any-return]


def refused(work: Callable[[], Any]) -> RequestError:
    with pytest.raises(RequestError) as found:
        work()
    return found.value


class Noting(dict[str, Any]):
    """An object of a request that notes which of its fields somebody looks at."""

    def __init__(self, **values: Any) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def test_what_is_read_is_what_the_tables_say() -> None:
    message, ollama_message = Noting(**TURNS[0]), Noting(**TURNS[0])
    options = Noting()
    bodies = {
        "chat": Noting(messages=[message]),
        "responses": Noting(input="Hi"),
        "ollama chat": Noting(messages=[ollama_message], options=options),
        "generate": Noting(prompt="Hi"),
    }
    for dialect, body in bodies.items():
        ASKED[dialect][0](body, LIMITS, lambda _: None)
    objects = [(OBJECTS[dialect], body) for dialect, body in bodies.items()]
    picture = {"type": "image_url", "image_url": Noting(url="data:,x")}
    part, url = Noting(type="text", text="x"), Noting(**picture)
    refusal, file = Noting(type="refusal", refusal="x"), Noting(type="input_image", file_id="sha256-x")
    turns = [{"role": "user", "content": [part, url]}, {"role": "assistant", "content": [refusal]}]
    read("chat", messages=[*turns, *TURNS])
    refused(lambda: read("chat", messages=[{"role": "user", "content": [file]}]))
    names = part.names | url.names | refusal.names | file.names
    assert names == set(known.PART.read)
    assert picture["image_url"].names == set(known.IMAGE_URL.read)
    within = (known.MESSAGE, message), (known.OLLAMA_MESSAGE, ollama_message), (known.OLLAMA_OPTIONS, options)
    for place, noting in (*objects, *within):
        assert noting.names - set(place.refused) == set(place.read), place.called


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.called)
def test_a_field_is_one_thing(place: Place) -> None:
    names = [*place.read, *place.left, *place.refused]
    assert len(names) == len(set(names))


def official() -> Iterator[Any]:
    """The fields that the vendors' own clients send."""
    types = pytest.importorskip("ollama._types", reason="the extra clients is not installed")
    chat = pytest.importorskip("openai.types.chat.completion_create_params")
    responses = pytest.importorskip("openai.types.responses.response_create_params")
    yield known.CHAT, chat.CompletionCreateParamsBase.__annotations__
    yield known.RESPONSES, responses.ResponseCreateParamsBase.__annotations__
    yield known.OLLAMA_CHAT, types.ChatRequest.model_fields
    yield known.OLLAMA_GENERATE, types.GenerateRequest.model_fields
    yield known.OLLAMA_OPTIONS, types.Options.model_fields
    yield known.OLLAMA_MESSAGE, types.Message.model_fields


def test_every_field_of_the_vendors_clients_is_known() -> None:
    for place, names in official():
        assert not set(names) - {*place.read, *place.left, *place.refused}, place.called


TOOL = {"type": "function", "function": {"name": "f"}}
REFUSED: list[tuple[str, dict[str, Any]]] = [
    *(
        (dialect, {name: value})
        for dialect in ("chat", "responses")
        for name, value in {
            "response_schema": {"type": "object"},
            "guided_grammar": "x",
            "guided_choice": ["a"],
            "grammar": "root ::= x",
            "structured_outputs": {"json": {}},
            "tools": [TOOL],
            "functions": [{"name": "f"}],
            "tool_choice": "required",
            "function_call": {"name": "f"},
            "min_tokens": 5,
            "ignore_eos": True,
            "stop_token_ids": [2],
            "n": 2,
            "logprobs": True,
            "top_logprobs": 3,
            "logit_bias": {"5": 1},
            "presence_penalty": 0.5,
            "frequency_penalty": -0.5,
            "audio": {"voice": "x"},
            "modalities": ["text", "audio"],
            "reasoning_effort": "high",
            "verbosity": "low",
            "typical_p": 0.5,
            "mirostat": 2,
            "repeat_last_n": 0,
            "skip_special_tokens": False,
            "chat_template_kwargs": {"enable_thinking": True},
            "prompt": "x",
            "extra_body": {"top_k": 1},
            "images": ["x"],
            "a_new_schema": {"type": "object"},
            "output_constraints": {"x": 1},
        }.items()
    ),
    *(("responses", {name: {"type": "object"}}) for name in ("schema", "json_schema", "response_format")),
    ("responses", {"regex": "x"}),
    ("responses", {"include": ["message.output_text.logprobs"]}),
    ("responses", {"previous_response_id": "r"}),
    ("responses", {"background": True}),
    ("responses", {"truncation": "auto"}),
    ("responses", {"reasoning": {"effort": "low"}}),
    ("responses", {"max_tokens": 0}),
    ("responses", {"messages": TURNS}),
    ("chat", {"max_output_tokens": 5}),
    ("chat", {"num_predict": 5}),
    ("chat", {"options": {"temperature": 1}}),
    ("chat", {"input": "x"}),
    ("chat", {"system": "x"}),
    *(
        (dialect, {name: value})
        for dialect in ("ollama chat", "generate")
        for name, value in {
            "tools": [TOOL],
            "think": True,
            "template": "{{ .Prompt }}",
            "logprobs": True,
            "temperature": 0,
            "seed": 1,
            "stop": ["x"],
            "max_tokens": 5,
            "response_format": {"type": "json_object"},
            "schema": {"type": "object"},
        }.items()
    ),
    ("generate", {"raw": True}),
    ("generate", {"suffix": "x"}),
    ("generate", {"context": [1]}),
    ("generate", {"width": 64}),
    ("generate", {"messages": TURNS}),
    ("ollama chat", {"prompt": "x"}),
    ("ollama chat", {"images": ["x"]}),
    ("ollama chat", {"system": "x"}),
]


@pytest.mark.parametrize(("dialect", "values"), REFUSED, ids=lambda one: one if isinstance(one, str) else str(one)[:40])
def test_an_effect_that_is_not_to_be_had_is_refused(dialect: str, values: dict[str, Any]) -> None:
    (name,) = values
    error = refused(lambda: read(dialect, **values))
    assert (error.status, error.code, error.param) == (400, "unsupported_parameter", name)
    assert name in str(error)


@pytest.mark.parametrize(
    ("name", "value"),
    {
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "mirostat": 1,
        "tfs_z": 0.5,
        "typical_p": 0.5,
        "repeat_last_n": -1,
        "penalize_newline": False,
        "max_tokens": 5,
        "repetition_penalty": 1.1,
        "format": "json",
    }.items(),
)
def test_options_of_ollama_that_are_not_to_be_had(name: str, value: Any) -> None:
    error = refused(lambda: read("generate", options={name: value}))
    assert (error.code, error.param) == ("unsupported_parameter", f"options.{name}")


@pytest.mark.parametrize("dialect", ASKED)
@pytest.mark.parametrize("value", [None, [], {}, ""], ids=repr)
def test_what_is_empty_asks_for_nothing(dialect: str, value: Any) -> None:
    place = OBJECTS[dialect]
    assert read(dialect, **dict.fromkeys((*place.left, *place.refused), value)).asked.warnings == ()


SENT: dict[str, tuple[str, dict[str, Any]]] = {
    "openai with all defaults said": (
        "chat",
        {
            "n": 1, "logprobs": False, "top_logprobs": 0, "presence_penalty": 0, "frequency_penalty": 0.0,
            "logit_bias": None, "tools": None, "tool_choice": "auto", "parallel_tool_calls": True, "user": "u",
            "store": False, "metadata": {"a": "b"}, "service_tier": "auto", "seed": None, "modalities": ["text"],
            "stream_options": {"include_usage": True}, "response_format": {"type": "text"}, "verbosity": "medium",
            "reasoning_effort": "none", "stop": None, "prediction": None,
        },
    ),
    "llama-server's defaults": (
        "chat",
        {
            "cache_prompt": True, "id_slot": -1, "typical_p": 1.0, "mirostat": 0, "mirostat_tau": 5.0,
            "xtc_threshold": 0.1, "repeat_last_n": 64,
            "dry_multiplier": 0, "xtc_probability": 0, "dynatemp_range": 0, "samplers": [],
            "n_probs": 0, "timings_per_token": False, "reasoning_format": "auto", "top_n_sigma": -1,
            "ignore_eos": False,
        },
    ),
    "vllm's defaults": (
        "chat",
        {
            "min_tokens": 0, "skip_special_tokens": True, "stop_token_ids": [], "length_penalty": 1.0, "best_of": 1,
            "use_beam_search": False, "add_generation_prompt": True, "include_stop_str_in_output": False, "echo": False,
        },
    ),
    "tools that are not to be used": ("chat", {"tools": [TOOL], "tool_choice": "none"}),
    "functions that are not to be used": ("chat", {"functions": [TOOL], "function_call": "none"}),
    "responses with defaults said": (
        "responses",
        {
            "include": ["reasoning.encrypted_content"], "store": True, "truncation": "disabled", "background": False,
            "tools": [], "tool_choice": "auto", "reasoning": {"effort": None}, "text": {"format": {"type": "text"}},
            "stream_options": {"include_obfuscation": False}, "max_tool_calls": None, "previous_response_id": None,
        },
    ),
    "Home Assistant": (
        "ollama chat",
        {"options": {"num_ctx": 8192}, "keep_alive": "-1s", "tools": [], "think": False, "stream": True},
    ),
    "Open WebUI": ("ollama chat", {"options": {}, "format": None, "keep_alive": None, "tools": None}),
    "Frigate": ("generate", {"options": {}, "images": [], "keep_alive": -1, "stream": False}),
    "ollama with defaults said": (
        "generate",
        {
            "suffix": "", "system": "", "template": "", "context": [], "raw": False, "format": "", "think": False,
            "options": {
                "num_keep": 5, "seed": -1, "typical_p": 1.0, "repeat_last_n": 64, "presence_penalty": 0.0,
                "mirostat": 0, "mirostat_tau": 5.0, "penalize_newline": True, "num_gpu": 99,
                "num_thread": 4, "use_mmap": True, "stop": [],
            },
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize(("dialect", "values"), SENT.values(), ids=SENT.keys())
def test_what_programs_send_by_default_passes_without_a_word(dialect: str, values: dict[str, Any]) -> None:
    request = read(dialect, **values)
    assert request.asked.warnings == ()
    assert request.asked.form is None


@pytest.mark.parametrize(
    ("dialect", "given", "meant"),
    [
        ("chat", "temprature", "temperature"),
        ("chat", "Temperature", "temperature"),
        ("chat", "max_token", "max_tokens"),
        ("chat", "maxTokens", "max_tokens"),
        ("chat", "max-completion-tokens", "max_completion_tokens"),
        ("chat", "reponse_format", "response_format"),
        ("chat", "response_fromat", "response_format"),
        ("chat", "streaming", "stream"),
        ("chat", "tool_choise", "tool_choice"),
        ("responses", "max_ouput_tokens", "max_output_tokens"),
        ("responses", "instruction", "instructions"),
        ("ollama chat", "keepalive", "keep_alive"),
        ("ollama chat", "option", "options"),
        ("generate", "image", "images"),
    ],
)
def test_a_name_misspelt_is_refused_with_the_right_one(dialect: str, given: str, meant: str) -> None:
    error = refused(lambda: read(dialect, **{given: 0}))
    assert (error.status, error.code, error.param) == (400, "unknown_parameter", given)
    assert f"did you mean {meant}?" in str(error)


def test_misspelt_names_inside() -> None:
    error = refused(lambda: read("generate", options={"num_predct": 5}))
    assert (error.code, error.param) == ("unknown_parameter", "options.num_predct")
    for part, param in (
        ({"type": "image_url", "image_url": {"url": "data:,x", "detial": "low"}}, "image_url.detial"),
        ({"type": "input_image", "image_url": "data:,x", "details": "low"}, "details"),
        ({"type": "text", "text": "x", "imageUrl": "data:,x"}, "imageUrl"),
    ):
        error = refused(lambda part=part: read("chat", messages=[{"role": "user", "content": [part]}]))  # type: ignore[misc]
        assert (error.code, error.param) == ("unknown_parameter", f"messages[0].content[0].{param}")
    error = refused(lambda: read("chat", messages=[{"role": "user", "contents": "x"}]))
    assert (error.code, error.param) == ("unknown_parameter", "messages[0].contents")


def test_pictures_beside_the_content_are_not_overlooked() -> None:
    for name in ("images", "image", "image_url", "files"):
        error = refused(lambda name=name: read("chat", messages=[{"role": "user", "content": "x", name: ["y"]}]))  # type: ignore[misc]
        assert (error.code, error.param) == ("unsupported_parameter", f"messages[0].{name}")


@pytest.mark.parametrize("dialect", ASKED)
def test_what_nobody_knows_is_said(dialect: str) -> None:
    warnings = read(dialect, features={"a": 1}, x_trace="\ud800\x1b" * 300).asked.warnings
    assert warnings == (
        "The field 'features' is not known here, and was ignored.",
        "The field 'x_trace' is not known here, and was ignored.",
    )


def test_unknown_fields_are_bounded() -> None:
    many: dict[str, Any] = {f"field {number}": 1 for number in range(100_000)}
    error = refused(lambda: read("chat", **many))
    assert error.code == "unknown_parameter"
    (warning,) = check_fields(Fields({"\ud800\n" * 10_000: 1}), known.CHAT)
    assert len(warning) < 300
    assert warning.isprintable()
    turns = [{"role": "user", "content": "x", **{f"{number} {one}": 1 for one in range(9)}} for number in range(200)]
    assert len(read("chat", messages=turns).asked.warnings) < 40
