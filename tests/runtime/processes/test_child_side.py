"""The far side of an isolated model, called in this process: what goes over the pipes, and the same logits."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from llava_edge.runtime.bundle.bundle import Bundle
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import GenerationOptions, LoadOptions
from llava_edge.runtime.processes import child_side as llm_process
from llava_edge.runtime.processes.child_side import CRASH, ERROR, RESULT, Served

TOKENS = [1, 5, 9, 13]
OPTIONS = LoadOptions(threads=1, repack=False)


@pytest.fixture(autouse=True)
def _no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end the test run where the shell that started it has gone."""
    monkeypatch.setattr(llm_process, "every", lambda *_: None)


def test_calls_reach_the_model(tiny_bundle: Path) -> None:
    path = Bundle.open(tiny_bundle).llm_path
    llm = Llm(path, options=OPTIONS)
    llm.ensure_context(64)
    llm.decode_tokens(TOKENS, 0, logits=True)
    expected = llm.logits()
    served = Served()
    assert served.connect(OPTIONS) == []
    sizes = served.load(path, OPTIONS, False, ())
    assert (sizes["vocab_size"], sizes["dim"], sizes["threads"]) == (llm.vocab_size, llm.dim, 1)
    served.call("ensure_context", 64, {})
    assert served.context_size() == llm.context_size
    served.call("decode_tokens", TOKENS, 0, {"logits": True})
    np.testing.assert_array_equal(served.call("logits", {}), expected)
    number = served.sampler(GenerationOptions(), 0, [])
    assert served.sample(number) == int(expected.argmax())
    served.close_sampler(number)
    served.sampler(GenerationOptions(), 0, [])
    served.close()
    llm.close()


def test_answers_are_plain_values() -> None:
    served = Served()
    assert llm_process._answer(served, "connect", (OPTIONS,)) == (RESULT, [])
    kind, parts = llm_process._answer(served, "load", (Path("none.gguf"), OPTIONS, False, ()))
    assert kind == ERROR
    assert parts[0] == "NativeError"
    assert "none.gguf" in parts[1]
    kind, said = llm_process._answer(served, "no_such_method", ())
    assert kind == CRASH
    assert "no_such_method" in said


def test_calls_and_replies_over_pipes() -> None:
    calls = io.BytesIO(pickle.dumps(("tokenize", ("text",))))
    assert llm_process._next_call(calls) == ("tokenize", ("text",))
    assert llm_process._next_call(calls) is None  # the application has gone
    replies = io.BytesIO()
    llm_process._reply(replies, RESULT, [1, 2])
    assert pickle.loads(replies.getvalue()) == (RESULT, [1, 2])


def test_an_application_that_is_still_there_is_not_left() -> None:
    llm_process._watch(os.getppid(), [])
