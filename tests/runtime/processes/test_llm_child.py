"""The far side of an isolated model, called in this process over pipes: the same logits, and plain values."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime.bundle.bundle import Bundle
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import GenerationOptions, LoadOptions
from llava_edge.runtime.processes.child_side import CANCELLED, CRASH, ERROR, ITEM, RESULT, Child
from llava_edge.runtime.processes.llm_child import ServedLlm
from support.played_child import Played

TOKENS = [1, 5, 9, 13]
OPTIONS = LoadOptions(threads=1, repack=False)
Ask = Callable[..., tuple[str, Any]]


def over_pipes(make: Callable[[Child], Any]) -> Iterator[Ask]:
    """Serve what ``make`` gives on another thread; asks it, or with nothing to ask only listens."""
    there, here = os.pipe(), os.pipe()
    with (
        os.fdopen(there[0], "rb") as requests,
        os.fdopen(here[1], "wb") as replies,
        os.fdopen(here[0], "rb") as answers,
    ):
        child = Child(requests, replies)
        serving = threading.Thread(target=child.serve, args=(make(child),))
        with os.fdopen(there[1], "wb") as questions:

            def ask(method: str | None = "", *arguments: Any, **keywords: Any) -> tuple[str, Any]:
                if method != "":
                    pickle.dump((0, method and (method, arguments, keywords)), questions)
                    questions.flush()
                lane, kind, value = pickle.load(answers)
                assert lane == 0
                return kind, value

            serving.start()
            yield ask
        serving.join()


@pytest.fixture
def ask() -> Iterator[Ask]:
    yield from over_pipes(ServedLlm)


@pytest.fixture
def ask_played() -> Iterator[Ask]:
    yield from over_pipes(Played)


def items_and_end(ask: Ask, *request: Any) -> tuple[list[Any], tuple[str, Any]]:
    items, (kind, value) = [], ask(*request)
    while kind == ITEM:
        items.append(value)
        kind, value = ask()
    return items, (kind, value)


def test_calls_reach_the_model(tiny_bundle: Path, ask: Ask) -> None:
    path = Bundle.open(tiny_bundle).llm_path
    llm = Llm(path, options=OPTIONS)
    llm.ensure_context(64)
    llm.decode_tokens(TOKENS, 0, logits=True)
    expected = llm.logits()
    assert ask("connect", OPTIONS) == (RESULT, [])
    shares, (kind, sizes) = items_and_end(ask, "load", path, OPTIONS, False, ())
    assert kind == RESULT
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert (sizes["vocab_size"], sizes["dim"], sizes["threads"]) == (llm.vocab_size, llm.dim, 1)
    assert ask("ensure_context", 64) == (RESULT, None)
    assert ask("current_context") == (RESULT, llm.context_size)
    ask("decode_tokens", TOKENS, 0, logits=True)
    np.testing.assert_array_equal(ask("logits")[1], expected)
    _, number = ask("sampler", GenerationOptions(), 0, [])
    assert ask("sample", number) == (RESULT, int(expected.argmax()))
    assert ask("close_sampler", number) == (RESULT, None)
    ask("sampler", GenerationOptions(), 0, [])  # is freed with the model
    llm.close()


def test_what_goes_wrong_is_told_in_plain_values(ask: Ask) -> None:
    _, (kind, parts) = items_and_end(ask, "load", Path("none.gguf"), OPTIONS, False, ())
    assert kind == ERROR
    assert parts[0] == "NativeError"
    assert "none.gguf" in parts[1]
    kind, said = ask("tokenize", "before there is a model")
    assert kind == CRASH
    assert "tokenize" in said


def test_items_and_the_wish_to_end(ask_played: Ask) -> None:
    assert [ask_played("count", 2), ask_played(), ask_played()] == [(ITEM, 0), (ITEM, 1), (RESULT, "all")]
    assert ask_played("wait_for_cancel") == (ITEM, "waiting")
    assert ask_played(None) == (CANCELLED, None)
    assert ask_played("count", 0) == (RESULT, "all")
