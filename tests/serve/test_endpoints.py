"""The dialects over the demo model: the same answers as in Python, in the shapes that clients read."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llava_edge.runtime as runtime
import pytest
from llava_edge.runtime import demo_bundle
from llava_edge.runtime.answer import Answer
from llava_edge.runtime.errors import NativeError
from llava_edge.runtime.options import GenerationOptions, LoadOptions
from llava_edge.runtime.pictures.tiles import lay_out
from llava_edge.serve.errors import request_error
from llava_edge.serve.models.local import LocalModel
from llava_edge.serve.models.registry import Facts, read_facts
from PIL import Image
from support.running_server import Played, Reached, running

CHAT = "/v1/chat/completions"
SIGN = (Path(__file__).parents[2] / "examples" / "sign.png").read_bytes()
URI = f"data:image/png;base64,{base64.b64encode(SIGN).decode()}"
ASKED = "What does the sign say?"


@pytest.fixture(scope="module")
def server() -> Iterator[Reached]:
    with running() as reached:
        yield reached


@pytest.fixture(scope="module")
def model() -> Iterator[runtime.Model]:
    with runtime.load() as loaded:
        yield loaded


@pytest.fixture(scope="module")
def answer(model: runtime.Model) -> Answer:
    return model.ask(ASKED, [SIGN], max_tokens=32)


def about(text: str, *pictures: str, detail: str | None = None, **more: Any) -> dict[str, Any]:
    parts: list[Any] = [
        {"type": "image_url", "image_url": {"url": url, **({"detail": detail} if detail else {})}} for url in pictures
    ]
    content = [*parts, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 32, **more}


def events(said: bytes) -> list[tuple[str, Any]]:
    """(name, data) of server-sent events, read as the standard has it."""
    found = []
    for block in said.decode().split("\n\n"):
        fields = [line.partition(": ") for line in block.splitlines() if not line.startswith(":")]
        if fields:
            data = "\n".join(value for name, _, value in fields if name == "data")
            name = next((value for name, _, value in fields if name == "event"), "")
            found.append((name, data if data == "[DONE]" else json.loads(data)))
    return found


def test_the_answer_is_the_one_of_python(server: Reached, answer: Answer) -> None:
    status, body = server.json("POST", CHAT, about(ASKED, URI))
    assert status == 200
    assert body["object"] == "chat.completion"
    assert body["model"] == "llava-edge-demo"
    (choice,) = body["choices"]
    assert choice["message"]["content"] == answer.text != ""
    assert (choice["finish_reason"], choice["index"], choice["logprobs"]) == (answer.finish_reason, 0, None)
    usage = body["usage"]
    assert usage["prompt_tokens"] == answer.prompt_tokens
    assert usage["completion_tokens"] == len(answer.tokens)
    assert usage["total_tokens"] == answer.prompt_tokens + len(answer.tokens)
    assert usage["prompt_tokens_details"]["image_tokens"] == sum(answer.image_tokens)


@pytest.mark.parametrize("with_usage", [False, True])
def test_streamed(server: Reached, answer: Answer, with_usage: bool) -> None:
    wish = {"stream_options": {"include_usage": True}} if with_usage else {}
    status, headers, said = server.request("POST", CHAT, about(ASKED, URI, stream=True, **wish))
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert headers["x-accel-buffering"] == "no"
    *chunks, (_, done) = events(said)
    assert done == "[DONE]"
    assert len({chunk["id"] for _, chunk in chunks}) == 1
    assert {chunk["object"] for _, chunk in chunks} == {"chat.completion.chunk"}
    if with_usage:
        (_, last), chunks = chunks[-1], chunks[:-1]
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == len(answer.tokens)
    assert [chunk.get("usage", "absent") for _, chunk in chunks] == [None if with_usage else "absent"] * len(chunks)
    choices = [chunk["choices"][0] for _, chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert choices[-1]["delta"] == {}
    assert [one["finish_reason"] for one in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert "".join(one["delta"].get("content", "") for one in choices) == answer.text


def test_progress_where_it_is_asked_for(server: Reached) -> None:
    picture = io.BytesIO()
    Image.radial_gradient("L").resize((90, 90)).save(picture, "PNG")
    uri = f"data:;base64,{base64.b64encode(picture.getvalue()).decode()}"
    chunks = [
        chunk
        for _, chunk in events(server.request("POST", CHAT, about("x", uri, stream=True, return_progress=True))[2])
    ]
    tiles = [chunk["encode_progress"] for chunk in chunks if "encode_progress" in chunk]
    assert [one["tiles_done"] for one in tiles] == list(range(1, tiles[0]["tiles"] + 1))
    read = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
    assert read[0]["processed"] == read[0]["cache"]
    assert read[-1]["processed"] == read[-1]["total"] > read[0]["cache"]
    silent = events(server.request("POST", CHAT, about("x", uri, stream=True))[2])
    assert not any("prompt_progress" in chunk for _, chunk in silent)


def test_a_conversation_goes_on_behind_what_was_read(server: Reached, model: runtime.Model) -> None:
    chat = model.chat(system="Be short.")
    first = chat.generate(ASKED, images=[SIGN], max_tokens=32)
    second = chat.generate("What colour is it?", max_tokens=32)
    turns = [{"role": "system", "content": "Be short."}, *about(ASKED, URI)["messages"]]
    body = server.json("POST", CHAT, {"messages": turns, "max_tokens": 32})[1]
    assert body["choices"][0]["message"]["content"] == first.text
    turns += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "What colour is it?"}]
    body = server.json("POST", CHAT, {"messages": turns, "max_tokens": 32})[1]
    assert body["choices"][0]["message"]["content"] == second.text
    assert body["usage"]["prompt_tokens"] == second.prompt_tokens
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] >= first.prompt_tokens


@pytest.mark.parametrize(
    ("detail", "tiled"), [(None, True), ("high", True), ("original", True), ("auto", True), ("low", False)]
)
def test_detail(server: Reached, model: runtime.Model, detail: str | None, tiled: bool) -> None:
    usage = server.json("POST", CHAT, about(ASKED, URI, detail=detail))[1]["usage"]
    geometry = model.manifest.geometry
    layout = lay_out(Image.open(io.BytesIO(SIGN)).size, geometry, overview_only=not tiled)
    assert usage["prompt_tokens_details"]["image_tokens"] == layout.image_tokens


def test_fewer_positions(server: Reached, model: runtime.Model) -> None:
    """The field is read in every dialect; the answer says that something was lost."""
    expected = lay_out(Image.open(io.BytesIO(SIGN)).size, model.manifest.geometry, picture_tokens="25%")
    body = server.json("POST", CHAT, about(ASKED, URI, picture_tokens="25%"))[1]
    assert body["usage"]["prompt_tokens_details"]["image_tokens"] == expected.image_tokens
    assert any("positions were kept (picture tokens)" in one for one in body["warnings"])
    counted = server.json("POST", f"{CHAT}/input_tokens", about(ASKED, URI, picture_tokens=20))[1]
    assert counted["image_tokens"] == [21]
    asked = {"prompt": ASKED, "images": [base64.b64encode(SIGN).decode()], "stream": False}
    told = [
        server.json("POST", "/api/generate", {**asked, "options": given})[1]["prompt_eval_count"]
        for given in ({}, {"picture_tokens": 20})
    ]
    whole = lay_out(Image.open(io.BytesIO(SIGN)).size, model.manifest.geometry)
    assert told[0] - told[1] == whole.image_tokens - 21
    for wrong in (1, "0%", "all", [20], 2.5):
        status, body = server.json("POST", CHAT, about(ASKED, URI, picture_tokens=wrong))
        assert (status, body["error"]["param"]) == (400, "picture_tokens")
    shown = server.json("POST", "/v1/pictures?picture_tokens=20", SIGN, headers={"Content-Type": "image/png"})[1]
    assert shown["image_tokens"] == 21
    assert server.json("GET", f"/v1/pictures/{shown['id']}?picture_tokens=1")[0] == 400


def test_the_servers_picture_tokens_count_everywhere() -> None:
    """What ``serve --picture-tokens`` says holds for uploads as for questions, unless the request says something."""
    with running(picture_tokens="10%") as server:
        asked = server.json("POST", f"{CHAT}/input_tokens", about(ASKED, URI))[1]["image_tokens"]
        about_it = server.json("POST", "/v1/pictures", SIGN, headers={"Content-Type": "image/png"})[1]
        assert [about_it["image_tokens"]] == asked
        at = f"/v1/pictures/{about_it['id']}"
        assert server.json("GET", at)[1] == about_it
        assert server.json("GET", f"{at}?picture_tokens=20")[1]["image_tokens"] == 21
        assert server.json("GET", f"{at}?picture_tokens=100%25")[1]["image_tokens"] > 21


def test_auto_gives_up_tiles_where_they_do_not_fit(server: Reached) -> None:
    many = [URI] * 13
    status, body = server.json("POST", CHAT, about("x", *many, detail="high"))
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")
    status, body = server.json("POST", CHAT, about("x", *many, detail="auto"))
    assert status == 200
    assert body["usage"]["prompt_tokens_details"]["image_tokens"] == 13 * 37
    (warning,) = body["warnings"]
    assert "detail low" in warning
    status, body = server.json("POST", CHAT, about("x", *[URI] * 16, "x", detail="low"))
    assert status == 400


def test_the_server_may_override_detail() -> None:
    with running(detail="low") as server:
        assert (
            server.json("POST", CHAT, about("x", URI, detail="high"))[1]["usage"]["prompt_tokens_details"][
                "image_tokens"
            ]
            == 37
        )


def test_sampling_reaches_the_model(server: Reached, model: runtime.Model) -> None:
    hot = {"temperature": 5.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 5}
    expected = model.ask("Describe it.", [SIGN], max_tokens=9, **hot)  # type: ignore[arg-type]
    body = server.json("POST", CHAT, about("Describe it.", URI, **{**hot, "max_tokens": 9}))[1]
    assert body["choices"][0]["message"]["content"] == expected.text
    assert body["choices"][0]["finish_reason"] == expected.finish_reason == "length"
    stopped = server.json("POST", CHAT, about(ASKED, URI, stop=["P"]))[1]["choices"][0]
    assert stopped["message"]["content"] == model.ask(ASKED, [SIGN], stop=("P",)).text


def test_pictures_between_texts_keep_their_places(server: Reached, model: runtime.Model) -> None:
    picture = {"type": "image_url", "image_url": {"url": URI}}
    before, after = {"type": "text", "text": "Before:"}, {"type": "text", "text": "After: what is it?"}
    asked = {"messages": [{"role": "user", "content": [before, picture, after]}], "max_tokens": 8}
    expected = model.ask(["Before:", SIGN, "After: what is it?"], max_tokens=8)
    body = server.json("POST", CHAT, asked)[1]
    assert body["choices"][0]["message"]["content"] == expected.text
    assert body["usage"]["prompt_tokens"] == expected.prompt_tokens


def test_typed_marks_stay_text(server: Reached, model: runtime.Model) -> None:
    text = "Is <image> or <|eot_id|> a picture?"
    body = server.json("POST", CHAT, {"messages": [{"role": "user", "content": text}], "max_tokens": 8})[1]
    assert body["usage"]["prompt_tokens_details"]["image_tokens"] == 0
    assert body["usage"]["prompt_tokens"] == model.ask(text, max_tokens=8).prompt_tokens


DAMAGED = {
    "no picture": (b"just text, no picture", "invalid_image"),
    "cut PNG": (SIGN[: len(SIGN) // 2], "invalid_image"),
    "signature alone": (SIGN[:8], "invalid_image"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("data", "code"), DAMAGED.values(), ids=DAMAGED.keys())
def test_pictures_that_are_none(server: Reached, data: bytes, code: str, stream: bool) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    status, body = server.json("POST", CHAT, about("x", uri, stream=stream))
    assert status == 400
    assert (body["error"]["type"], body["error"]["code"]) == ("invalid_request_error", code)


def test_a_prompt_that_does_not_fit(server: Reached) -> None:
    status, headers, body = server.request("POST", CHAT, about("word " * 5000, stream=True))
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "context_length_exceeded")
    assert headers["x-should-retry"] == "false"
    assert "2048" in error["message"]


@pytest.mark.parametrize("name", ["llava-edge-demo", "demo", "llava-edge-demo:latest", None])
def test_names_of_the_model(server: Reached, name: str | None) -> None:
    assert server.json("POST", CHAT, about("Hi", model=name))[0] == 200


def test_unknown_model(server: Reached) -> None:
    status, body = server.json("POST", CHAT, about("Hi", model="gpt-5"))
    assert (status, body["error"]["code"], body["error"]["param"]) == (404, "model_not_found", "model")
    assert "llava-edge-demo" in body["error"]["message"]
    assert server.json("GET", "/v1/models/gpt-5")[0] == 404


def test_models(server: Reached) -> None:
    listed = server.json("GET", "/v1/models")[1]
    (one,) = listed["data"]
    assert (listed["object"], one["object"], one["id"]) == ("list", "model", "llava-edge-demo")
    assert isinstance(one["created"], int)
    assert one["max_model_len"] == one["meta"]["n_ctx"] == 2048
    assert one["aliases"] == ["demo"]
    assert "image" in one["architecture"]["input_modalities"]
    assert server.json("GET", "/v1/models/demo")[1] == one


def test_uploads(server: Reached, answer: Answer, model: runtime.Model) -> None:
    status, about_it = server.json("POST", "/v1/pictures", SIGN, headers={"Content-Type": "image/png"})
    layout = lay_out(Image.open(io.BytesIO(SIGN)).size, model.manifest.geometry)
    assert status == 200
    assert about_it == {
        "id": about_it["id"],
        "size": list(layout.size),
        "grid": list(layout.grid),
        "resized": list(layout.resized),
        "unpadded": list(layout.unpadded),
        "image_tokens": layout.image_tokens,
    }
    assert server.json("GET", f"/v1/pictures/{about_it['id']}")[1] == about_it
    low = server.json("GET", f"/v1/pictures/{about_it['id']}?detail=low")[1]
    assert low["image_tokens"] == 37
    for query in ("", "?detail=low"):
        status, headers, drawn = server.request("GET", f"/v1/pictures/{about_it['id']}/tiles.png{query}")
        assert (status, headers["content-type"]) == (200, "image/png")
        assert Image.open(io.BytesIO(drawn)).width >= 48
    body = server.json("POST", CHAT, about(ASKED, f"picture:{about_it['id']}"))[1]
    assert body["choices"][0]["message"]["content"] == answer.text


@pytest.mark.parametrize("path", ["", "/tiles.png"])
def test_pictures_that_were_not_uploaded(server: Reached, path: str) -> None:
    status, body = server.json("GET", f"/v1/pictures/sha256-{'0' * 64}{path}")
    assert (status, body["error"]["code"]) == (404, "picture_not_found")
    for name in ("x", "sha256-00", "sha256-" + "Z" * 2000, "picture:sha256-00"):
        status, body = server.json("GET", f"/v1/pictures/{name}{path}")
        assert (status, body["error"]["code"]) == (404, "picture_not_found")
        assert "POST the picture to /v1/pictures" in body["error"]["message"]
    status, body = server.json("POST", "/v1/pictures", b"no picture", headers={"Content-Type": "image/png"})
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, "invalid_image", None)
    assert server.json("GET", "/v1/pictures/x?detail=huge")[0] == 400


@pytest.mark.parametrize("path", [f"{CHAT}/input_tokens", "/v1/responses/input_tokens"])
def test_counting_without_answering(server: Reached, answer: Answer, path: str) -> None:
    messages = about(ASKED, URI)["messages"]
    counted = server.json("POST", path, {"input" if "responses" in path else "messages": messages})[1]
    assert counted["input_tokens"] == answer.prompt_tokens
    assert counted["image_tokens"] == list(answer.image_tokens)


def test_of_several_pictures_the_damaged_one_is_named(server: Reached) -> None:
    url = {"type": "image_url", "image_url": {"url": URI}}
    damaged = {"type": "image_url", "image_url": {"url": NO_PICTURE}}
    for content, turns, place in (
        ([url] * 10 + [damaged], 1, "messages[0].content[10].image_url.url"),
        ([damaged] + [url] * 10, 1, "messages[0].content[0].image_url.url"),
        ([damaged, url], 2, "messages[0].content[0].image_url.url"),
    ):
        messages = [{"role": "user", "content": content}]
        if turns > 1:
            messages += [{"role": "assistant", "content": "x"}, {"role": "user", "content": [url, url]}]
        status, body = server.json("POST", CHAT, {"messages": messages})
        assert (status, body["error"]["param"]) == (400, place)


def test_a_response_repeats_what_was_sent(server: Reached) -> None:
    form = {"type": "json_schema", "name": "n", "strict": True, "schema": {"type": "boolean"}}
    sent = {"instructions": "Be short.", "metadata": {"a": "b"}, "text": {"format": form}, "user": "somebody"}
    whole = server.json("POST", "/v1/responses", {"input": "x", "max_output_tokens": 4, **sent})[1]
    assert {name: whole[name] for name in sent} == sent
    plain = server.json("POST", "/v1/responses", {"input": "x", "max_output_tokens": 1})[1]
    assert (plain["instructions"], plain["metadata"]) == (None, {})
    assert plain["text"] == {"format": {"type": "text"}}


def test_a_response_that_fails_says_why() -> None:
    with running(Played()) as server:
        body = {"input": "break off", "stream": True}
        name, event = events(server.request("POST", "/v1/responses", body)[2])[-1]
        assert name == "response.failed"
        assert event["response"]["error"]["code"] == "engine_restarting"


JSON_TYPE = {"Content-Type": "application/json"}


def test_values_are_shown_as_they_were_sent(server: Reached) -> None:
    for sent, said in ((True, "got true"), ({"a": None, "b": [False]}, 'got {"a": null, "b": [false]}')):
        assert said in server.json("POST", CHAT, {**about("x"), "temperature": sent})[1]["error"]["message"]
    said = server.json("POST", CHAT, {**about("x"), "seed": 2**63})[1]["error"]["message"]
    assert "to 9223372036854775807 as seed" in said
    said = server.request("POST", CHAT, b'{"seed": ' + b"9" * 5000 + b"}", JSON_TYPE)[2].decode()
    assert "a number too large" in said
    assert "sys." not in said


def test_too_large_an_upload_is_not_told_to_upload(server: Reached) -> None:
    headers = {"Content-Type": "image/png"}
    status, _, body = server.request("POST", "/v1/pictures", b"x" * (21 * 2**20), headers)
    assert status == 413
    assert b"/v1/pictures" not in body
    assert b"scale the picture down" in body


def test_responses(server: Reached, answer: Answer) -> None:
    asked = {"input": about(ASKED, URI)["messages"], "max_output_tokens": 32}
    whole = server.json("POST", "/v1/responses", asked)[1]
    assert (whole["object"], whole["status"]) == ("response", "completed")
    assert whole["output"][0]["content"][0]["text"] == answer.text
    assert whole["output"][0]["content"][0]["annotations"] == []
    assert whole["usage"]["input_tokens"] == answer.prompt_tokens
    sent = events(server.request("POST", "/v1/responses", {**asked, "stream": True})[2])
    assert all(name == event["type"] for name, event in sent)
    assert [event["sequence_number"] for _, event in sent] == list(range(len(sent)))
    names = [name for name, _ in sent if name != "response.output_text.delta"]
    assert names == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(event["delta"] for name, event in sent if name.endswith("delta")) == answer.text
    cut = server.json("POST", "/v1/responses", {**asked, "max_output_tokens": 1})[1]
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "generate"])
def test_ollama(server: Reached, answer: Answer, chat: bool) -> None:
    image = base64.b64encode(SIGN).decode()
    if chat:
        path, asked = "/api/chat", {"messages": [{"role": "user", "content": ASKED, "images": [image]}]}
    else:
        path, asked = "/api/generate", {"prompt": ASKED, "images": [image]}

    def text_of(line: dict[str, Any]) -> str:
        return str(line["message"]["content"] if chat else line["response"])

    status, headers, said = server.request("POST", path, asked)
    lines = [json.loads(line) for line in said.splitlines()]
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    assert "".join(map(text_of, lines)) == answer.text
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["done_reason"] == "stop"
    assert lines[-1]["eval_count"] == len(answer.tokens)
    assert lines[-1]["prompt_eval_count"] == answer.prompt_tokens
    whole = server.json("POST", path, {**asked, "stream": False})[1]
    assert text_of(whole) == answer.text
    status, error = server.json("POST", path, {**asked, "model": "nobody"})
    assert (status, type(error["error"])) == (404, str)


def test_ollama_lists(server: Reached) -> None:
    assert server.json("GET", "/api/version")[1].keys() == {"version"}
    (listed,) = server.json("GET", "/api/tags")[1]["models"]
    (running_one,) = server.json("GET", "/api/ps")[1]["models"]
    assert listed["name"] == running_one["name"] == "llava-edge-demo"
    shown = server.json("POST", "/api/show", {"model": "llava-edge-demo"})[1]
    assert shown["capabilities"] == ["completion", "vision"]
    assert server.json("POST", "/api/show", {"model": "x"})[0] == 404


def test_metrics_count(server: Reached) -> None:
    def metrics() -> dict[str, float]:
        text = server.request("GET", "/metrics")[2].decode()
        return {
            name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        }

    before = metrics()
    body = server.json("POST", CHAT, about(ASKED, URI))[1]
    after = metrics()
    grown = {name: after[name] - before[name] for name in after}
    assert grown['llava_edge_requests_total{outcome="answered"}'] == 1
    assert grown["llava_edge_prompt_tokens_total"] == body["usage"]["prompt_tokens"]
    assert grown["llava_edge_generated_tokens_total"] == body["usage"]["completion_tokens"]
    assert after["llava_edge_models_loaded"] == 1
    status = server.json("GET", "/v1/status")[1]
    assert status["models"] == {"llava-edge-demo": "loaded"}
    assert status["limits"] == {"pictures": 16, "picture_bytes": 20 * 2**20}


@pytest.mark.parametrize("engine", ["onnxruntime", "llama.cpp"])
def test_metrics_say_what_reads_prompts(engine: Any) -> None:
    with running(loading={"prompt_engine": engine}) as other:
        other.json("POST", CHAT, about(ASKED, URI))
        text = other.request("GET", "/metrics")[2].decode()
        read = float(re.findall(r"^llava_edge_prompt_engine_tokens_total (.*)$", text, re.MULTILINE)[0])
        assert (read >= 64) == (engine == "onnxruntime")


SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"], "additionalProperties": False}


def held_to(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}


def test_a_schema_is_held(server: Reached) -> None:
    body = server.json("POST", CHAT, about("Say something.", **held_to(SCHEMA)))[1]
    assert json.loads(body["choices"][0]["message"]["content"])["a"] in ("x", "y")


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_cannot_be_held_is_refused_at_once(server: Reached, stream: bool) -> None:
    wrong = {"type": "array", "uniqueItems": True}
    status, body = server.json("POST", CHAT, about("x", stream=stream, **held_to(wrong)))
    assert (status, body["error"]["code"], body["error"]["param"]) == (
        400,
        "invalid_schema",
        "response_format.json_schema.schema",
    )


def test_a_regular_expression_is_held(server: Reached) -> None:
    body = server.json("POST", CHAT, about("Say a number.", regex="[0-9]{3}"))[1]
    text = body["choices"][0]["message"]["content"]
    assert len(text) == 3
    assert text.isdecimal()


IMPOSSIBLE = {"type": "array", "uniqueItems": True}
NO_PICTURE = "data:image/png;base64,AAAA"
PATHS = {
    CHAT: (about("x"), about("x", NO_PICTURE), "messages"),
    "/v1/responses": ({"input": "x"}, {"input": about("x", NO_PICTURE)["messages"]}, "input"),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("counting", ["", "/input_tokens"])
def test_an_error_names_the_field_that_it_is_about(server: Reached, path: str, counting: str) -> None:
    asked, pictured, turns = PATHS[path]
    status, body = server.json("POST", path + counting, pictured)
    place = f"{turns}[0].content[0].image_url.url"
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, "invalid_image", place)
    long = {**asked, turns: about("word " * 5000)["messages"]}
    status, body = server.json("POST", path + counting, long)
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, "context_length_exceeded", turns)
    if path == CHAT:
        forms: dict[str, dict[str, Any]] = {
            "response_format.json_schema.schema": held_to(IMPOSSIBLE),
            "guided_json": {"guided_json": IMPOSSIBLE},
            "regex": {"regex": "("},
        }
    else:
        forms = {"text.format.schema": {"text": {"format": {"type": "json_schema", "name": "n", "schema": IMPOSSIBLE}}}}
    for param, form in forms.items():
        status, body = server.json("POST", path + counting, {**asked, **form})
        assert (status, body["error"]["code"], body["error"]["param"]) == (400, "invalid_schema", param)


def test_what_was_ignored_is_said_beside_the_answer(server: Reached) -> None:
    said = ["The field 'features' is not known here, and was ignored."]
    unknown = {"features": {"web": True}}
    assert server.json("POST", CHAT, about("Hi", **unknown))[1]["warnings"] == said
    chunks = events(server.request("POST", CHAT, about("Hi", stream=True, **unknown))[2])
    assert [chunk["warnings"] for _, chunk in chunks[:-1] if "warnings" in chunk] == [said]
    assert server.json("POST", "/v1/responses", {"input": "Hi", **unknown})[1]["warnings"] == said
    asked = {"prompt": "Hi", "stream": False, "options": {"num_ctx": 8192}, **unknown}
    more = "The context has 2048 positions, not the 8192 of num_ctx."
    assert server.json("POST", "/api/generate", asked)[1]["warnings"] == [*said, more]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json; charset=utf-8", 200),
        ('Application/JSON; charset="UTF-8"', 200),
        ("application/json;charset=utf-16", 415),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
    ],
)
def test_content_types(server: Reached, kind: str, status: int) -> None:
    body = json.dumps(about("Hi", max_tokens=1)).encode()
    assert server.request("POST", CHAT, body, headers={"Content-Type": kind})[0] == status


def test_the_last_seed_can_be_had_again(model: runtime.Model) -> None:
    """llama.cpp takes 2**32 - 1 for "a new one"."""
    hot = {"temperature": 5.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 2**32 - 1, "max_tokens": 12}
    assert model.ask("Tell me.", **hot).tokens == model.ask("Tell me.", **hot).tokens  # type: ignore[arg-type]


def test_a_model_damaged_on_the_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The client hears no path of the server, who runs it all of it, in one line."""
    bundle = tmp_path / "served"
    shutil.copytree(demo_bundle(), bundle)

    def opener(facts: Facts, cancelled: Any) -> Any:
        return LocalModel(facts.path, LoadOptions(), GenerationOptions(), cancelled)

    with running(facts=read_facts([bundle]), opener=opener) as server:
        assert server.json("POST", "/v1/models/served/unload", b"")[0] == 200
        (bundle / "llm.gguf").write_bytes(b"cut off")
        capsys.readouterr()
        for path, body in (
            (CHAT, about("Hi")),
            (f"{CHAT}/input_tokens", about("Hi")),
            ("/v1/models/served/load", b""),
            ("/api/generate", {"prompt": "Hi"}),
        ):
            status, said = server.json("POST", path, body)
            assert status == 500
            assert "a model whose files are whole" in str(said)
            assert str(tmp_path) not in str(said)
            if not path.startswith("/api"):
                assert said["error"]["code"] == "model_damaged"
            (line,) = capsys.readouterr().err.splitlines()
            assert str(bundle / "llm.gguf") in line


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("the file /home/me/models/llm.gguf, whole", "the file llm.gguf, whole"),
        (r"C:\models\a.onnx: no such file", "a.onnx: no such file"),
        ("POST it to /health and see docs/serving.md", "POST it to /health and see docs/serving.md"),
        ("3/4 of it, http://a.b/c/d", "3/4 of it, http://a.b/c/d"),
    ],
)
def test_errors_of_the_server_name_no_folders(text: str, left: str) -> None:
    told = request_error(NativeError(expected=text, got=text, fix=text))
    assert (told.expected, told.got, told.fix) == (left, left, left)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/chat/completions", "did you mean /v1/chat/completions?"),
        ("/v1/v1/models", "did you mean /v1/models?"),
        ("/v1/api/chat", "did you mean /api/chat?"),
        ("/v1/chat/completions/", "did you mean /v1/chat/completions?"),
        ("/v1/completions", "use /v1/chat/completions"),
        ("/v1/embeddings", "no embeddings"),
        ("/api/pull", "llava-edge pull"),
        ("/nowhere", "see docs/serving.md"),
        ("/v1", "see docs/serving.md"),
    ],
)
def test_paths_that_are_not_here(server: Reached, path: str, said: str) -> None:
    status, body = server.json("POST", path, about("Hi"))
    assert status == 404
    assert said in str(body)
