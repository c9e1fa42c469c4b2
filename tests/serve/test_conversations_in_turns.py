"""Conversations that take turns keep what was read of each, within a limit, and answer as if they were alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from llava_edge.runtime import demo_bundle
from llava_edge.runtime.answer import Answer
from llava_edge.runtime.engine.asking import Remembered
from llava_edge.runtime.options import GenerationOptions, LoadOptions
from llava_edge.serve.models.interface import Listener
from llava_edge.serve.models.local import LocalModel, cache_sizes
from llava_edge.serve.models.metrics import Metrics
from llava_edge.serve.requests.values import Asked, Message, SentPicture

SIGN = (Path(__file__).parents[2] / "examples" / "sign.png").read_bytes()
PICTURE = SentPicture(SIGN, "high")
LOW = SentPicture(SIGN, "low")
TITLE = Asked((Message("user", ("Write a title. " * 80,)),), {"max_tokens": 8})
ONE = Asked((Message("user", (PICTURE, PICTURE, "What do the signs say?")),), {"max_tokens": 8})
TWO = Asked((Message("user", (*[LOW] * 8, "How many shapes are there?")),), {"max_tokens": 8})


def ask(model: LocalModel, asked: Asked) -> Answer:
    return model.answer(asked, Listener(lambda text: None, lambda *_: None, lambda *_: None), threading.Event().is_set)


def made(limit: int, isolate: Literal["engine", False] = False, **options: Any) -> LocalModel:
    return LocalModel(demo_bundle(), LoadOptions(kept_states=limit, isolate=isolate, **options), GenerationOptions())


@pytest.fixture(scope="module", params=[False, "engine"], ids=["here", "isolated"])
def keeping(request: pytest.FixtureRequest) -> Iterator[LocalModel]:
    model = made(2**30, request.param)
    yield model
    model.close()


@pytest.fixture
def forgetting() -> Iterator[LocalModel]:
    model = made(0)
    yield model
    model.close()


def test_who_takes_turns_is_not_read_again(keeping: LocalModel, forgetting: LocalModel) -> None:
    seen: set[int] = set()
    for asked in (ONE, TITLE, TWO, ONE, TWO, TITLE, ONE):
        answer, alone = ask(keeping, asked), ask(forgetting, asked)
        assert answer.tokens == alone.tokens
        again = id(asked) in seen
        assert (answer.cached_tokens >= answer.prompt_tokens - 1) == again
        assert alone.cached_tokens < 16
        seen.add(id(asked))


def test_a_conversation_goes_on_where_it_was(keeping: LocalModel) -> None:
    first = ask(keeping, ONE)
    ask(keeping, TITLE)
    more = Asked((*ONE.messages, Message("assistant", (first.text,)), Message("user", ("Which colour?",))))
    assert ask(keeping, more).cached_tokens >= first.prompt_tokens


@pytest.mark.parametrize("isolate", [False, "engine"], ids=["here", "isolated"])
def test_what_is_found_again_is_counted(tmp_path: Path, isolate: Literal["engine", False]) -> None:
    limits: dict[str, Any] = {"cache": tmp_path, "cache_min_free_disk": 0, "cache_min_positions": 1}
    model = made(2**30, isolate, **limits)
    try:
        assert model.remembered() == Remembered()
        ask(model, ONE)
        ask(model, TITLE)
        once = model.remembered()
        assert (once.kept_hits, once.state_hits, once.picture_hits) == (0, 0, 0)
        assert once.kept_bytes > 0
        ask(model, ONE)
        assert model.remembered().kept_hits == 1
    finally:
        model.close()
    sizes = cache_sizes(LoadOptions(**limits))
    on_disk = {one: sum(path.stat().st_size for path in tmp_path.rglob(f"*.{one}")) for one in ("kv", "emb")}
    assert sizes == {"cache_state_bytes": on_disk["kv"], "cache_picture_bytes": on_disk["emb"]}
    assert on_disk["emb"] > 0
    again = made(0, isolate, **limits)
    try:
        ask(again, ONE)
        found = again.remembered()
        assert (found.kept_hits, found.picture_hits) == (0, 1)
        assert found.state_hits == (1 if on_disk["kv"] else 0)
    finally:
        again.close()
    assert cache_sizes(LoadOptions()) == {}


def test_counters_outlive_the_process_that_counted() -> None:
    metrics = Metrics()
    for now in (Remembered(5, 2, 1, 1), Remembered(9, 3, 1, 1), Remembered(0, 1)):  # the last one's is another process
        metrics.remembered("m", now)
    metrics.remembered("n", Remembered(7, 1))
    said = metrics.text({}).splitlines()
    assert "llava_edge_kept_state_hits_total 5" in said
    assert "llava_edge_cache_state_hits_total 1" in said
    assert "llava_edge_kept_state_bytes 7" in said
    metrics.forgotten("n")
    assert "llava_edge_kept_state_bytes 0" in metrics.text({}).splitlines()
    assert "llava_edge_cache_state_bytes 3" in metrics.text({"cache_state_bytes": 3}).splitlines()


@pytest.mark.parametrize("options", [{"kv_type_k": "q8_0"}, {"context": 1024}])
def test_with_other_caches(options: dict[str, Any]) -> None:
    model = made(2**30, **options)
    try:
        first = ask(model, ONE)
        ask(model, TITLE)
        again = ask(model, ONE)
        assert (again.tokens, again.cached_tokens) == (first.tokens, first.prompt_tokens - 1)
    finally:
        model.close()
