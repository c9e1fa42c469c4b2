"""Real clients, unchanged: what their own parsers accept and refuse. They come with the extra ``clients``."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llava_edge.runtime.options import GenerationOptions, declared
from support.running_server import TOKEN, Played, Reached, running

pytestmark = [pytest.mark.network, pytest.mark.filterwarnings("default")]
openai = pytest.importorskip("openai", reason="the extra clients is not installed")
ollama = pytest.importorskip("ollama", reason="the extra clients is not installed")

SIGN = Path(__file__).parents[2] / "examples" / "sign.png"
URI = f"data:image/png;base64,{base64.b64encode(SIGN.read_bytes()).decode()}"
MODEL = "llava-edge-demo"
MESSAGES: Any = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What does the sign say?"},
            {"type": "image_url", "image_url": {"url": URI, "detail": "auto"}},
        ],
    }
]
INPUT: Any = [
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "What does the sign say?"},
            {"type": "input_image", "image_url": URI, "detail": "auto"},
        ],
    }
]


@pytest.fixture(scope="module")
def server() -> Iterator[Reached]:
    with running() as reached:
        yield reached


def client_of(server: Reached, **more: Any) -> Any:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", **{"api_key": TOKEN, **more})


@pytest.fixture(scope="module")
def client(server: Reached) -> Iterator[Any]:
    with client_of(server) as made:
        yield made


def test_openai_whole(client: Any) -> None:
    done = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert done.choices[0].message.content == "OPEN"
    assert done.choices[0].finish_reason == "stop"
    assert done.usage.prompt_tokens_details.image_tokens > 100


def test_openai_streamed(client: Any) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "OPEN"
    assert chunks[-1].usage.completion_tokens == 4


def test_openai_helper_of_streams(client: Any) -> None:
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
        kinds = {event.type for event in stream}
        assert stream.get_final_completion().choices[0].message.content == "OPEN"
    assert {"chunk", "content.delta", "content.done"} <= kinds


def test_openai_async(server: Reached) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=TOKEN) as client:
            asked = [client.chat.completions.create(model=MODEL, messages=MESSAGES) for _ in range(4)]
            return [done.choices[0].message.content for done in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == ["OPEN"] * 4


def test_openai_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve("demo").id == MODEL


def test_openai_responses(client: Any) -> None:
    whole = client.responses.create(model=MODEL, input=INPUT)
    assert (whole.output_text, whole.status) == ("OPEN", "completed")
    events = list(client.responses.create(model=MODEL, input=INPUT, stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "OPEN"
    with client.responses.stream(model=MODEL, input=INPUT) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == "OPEN"


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_openai_structured(client: Any, api: str) -> None:
    pydantic = pytest.importorskip("pydantic")
    if "schema" not in declared(GenerationOptions):
        pytest.skip("this build has no schemas")
    sign = pydantic.create_model("Sign", word=(str, pydantic.Field(max_length=5)), shapes=(bool, ...))
    if api == "chat":
        done = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=sign, max_tokens=64)
        assert isinstance(done.choices[0].message.parsed, sign)
    else:
        assert isinstance(client.responses.parse(model=MODEL, input=INPUT, text_format=sign).output_parsed, sign)


def test_openai_errors_are_its_own_classes(server: Reached, client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-5", messages=MESSAGES)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=MODEL, messages=MESSAGES, n=2)
    with client_of(server, api_key="wrong") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_openai_tries_once_where_a_retry_mends_nothing_and_again_where_it_does() -> None:
    played = Played()
    with running(played) as server, client_of(server) as client:
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "fail"}])
        assert played.asked == ["fail"]
        with pytest.raises(openai.APIError, match="error inside the server"):
            list(
                client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": "crash"}], stream=True
                )
            )
        held = [server.opened("/v1/chat/completions", {"messages": [{"role": "user", "content": "hold decode"}]})]
        played.reached("decode")
        held += [server.opened("/v1/chat/completions", {"messages": MESSAGES}) for _ in range(8)]
        desk = server.server.application.service.desk  # type: ignore[union-attr]
        while desk.line.inside < 9:
            time.sleep(0.01)
        with client_of(server, max_retries=0) as hasty, pytest.raises(openai.RateLimitError):
            hasty.chat.completions.create(model=MODEL, messages=MESSAGES)
        played.go_on.set()
        assert client.chat.completions.create(model=MODEL, messages=MESSAGES).choices[0].message.content == "one two"
        for one in held:
            one.close()


@pytest.fixture(scope="module")
def ollama_client(server: Reached) -> Iterator[Any]:
    with ollama.Client(host=f"http://127.0.0.1:{server.port}", headers={"Authorization": f"Bearer {TOKEN}"}) as made:
        yield made


def test_ollama(ollama_client: Any) -> None:
    client = ollama_client
    messages = [{"role": "user", "content": "What does the sign say?", "images": [str(SIGN)]}]
    assert client.chat(model=MODEL, messages=messages).message.content == "OPEN"
    streamed = client.chat(model=MODEL, messages=messages, stream=True)
    assert "".join(part.message.content for part in streamed) == "OPEN"
    done = client.generate(model=MODEL, prompt="What does the sign say?", images=[SIGN.read_bytes()])
    assert (done.response, done.done_reason) == ("OPEN", "stop")


def test_ollama_lists_and_errors(ollama_client: Any) -> None:
    client = ollama_client
    assert [model.model for model in client.list().models] == [MODEL]
    assert "vision" in client.show(MODEL).capabilities
    assert [model.model for model in client.ps().models] == [MODEL]
    with pytest.raises(ollama.ResponseError, match="a model among") as unknown:
        client.chat(model="nobody", messages=[{"role": "user", "content": "Hi"}])
    assert unknown.value.status_code == 404


def test_ollama_structured(ollama_client: Any) -> None:
    if "schema" not in declared(GenerationOptions):
        pytest.skip("this build has no schemas")
    schema = {
        "type": "object",
        "properties": {"shapes": {"type": "boolean"}},
        "required": ["shapes"],
        "additionalProperties": False,
    }
    said = ollama_client.chat(model=MODEL, messages=[{"role": "user", "content": "Shapes?"}], format=schema)
    assert json.loads(said.message.content).keys() == {"shapes"}


def test_langchain(server: Reached) -> None:
    langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    model = langchain.ChatOpenAI(model=MODEL, base_url=f"http://127.0.0.1:{server.port}/v1", api_key=TOKEN)
    done = model.invoke(MESSAGES)
    assert (done.content, done.response_metadata["finish_reason"]) == ("OPEN", "stop")
    assert done.usage_metadata["output_tokens"] == 4
    assert "".join(chunk.content for chunk in model.stream(MESSAGES)) == "OPEN"


@pytest.mark.parametrize("streamed", [True, False])
def test_llm(server: Reached, tmp_path: Path, streamed: bool) -> None:
    """Simon Willison's ``llm``, as its documentation sets a server up."""
    pytest.importorskip("llm", reason="llm is not installed")
    about = {
        "model_id": "edge",
        "model_name": MODEL,
        "api_base": f"http://127.0.0.1:{server.port}/v1",
        "api_key_name": "edge",
        "vision": True,
        "can_stream": True,
    }
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([about]))
    (tmp_path / "keys.json").write_text(json.dumps({"edge": TOKEN}))
    said = subprocess.run(
        [
            *(sys.executable, "-m", "llm", "-m", "edge", "-a", str(SIGN), "--no-log"),
            *([] if streamed else ["--no-stream"]),
            "What does the sign say?",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "LLM_USER_PATH": str(tmp_path)},
    )
    assert said.stdout.strip() == "OPEN", said.stderr
