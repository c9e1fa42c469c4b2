"""Answers on disk: what was written comes back, whole or not at all, under a key of what it depends on."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from llava_edge.benchmark.accuracy.answer_store import (
    CandidateAnswer,
    CandidateStore,
    ReferenceAnswer,
    ReferenceStore,
    question_key,
)
from llava_edge.benchmark.data.questions import Question
from llava_edge.runtime.errors import StorageError
from llava_edge.runtime.system.storage import write_whole

ROWS = np.log(np.random.default_rng(1).dirichlet(np.ones(300), 3)).astype(np.float16)
REFERENCE = ReferenceAnswer("Zwölf 🦙", (7, 8, 2), ROWS)
CANDIDATE = CandidateAnswer("Elf", (7, 9), (0.1, 1 / 3), (1e-7, 0.0), (True, False))


def test_answers_come_back(tmp_path: Path) -> None:
    references, candidates = ReferenceStore(tmp_path, "r"), CandidateStore(tmp_path, "r", "c")
    assert references.read("q") is candidates.read("q") is None
    references.write("q", REFERENCE)
    candidates.write("q", CANDIDATE)
    back = references.read("q")
    assert back is not None
    assert (back.text, back.tokens, back.refused) == (REFERENCE.text, REFERENCE.tokens, "")
    assert back.rows.dtype == np.float16
    assert np.array_equal(back.rows, ROWS)
    assert candidates.read("q") == CANDIDATE
    assert CANDIDATE.first_divergent == 1
    refused = ReferenceAnswer("", (), np.zeros((0, 300), np.float16), refused="too long")
    references.write("q", refused)
    again = references.read("q")
    assert again is not None
    assert (again.refused, again.rows.shape) == ("too long", (0, 300))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_what_was_cut_off_counts_as_missing(share: float, tmp_path: Path) -> None:
    references, candidates = ReferenceStore(tmp_path, "r"), CandidateStore(tmp_path, "r", "c")
    references.write("q", REFERENCE)
    candidates.write("q", CANDIDATE)
    for path in (references.path("q"), candidates.path("q")):
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
    assert references.read("q") is candidates.read("q") is None


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CandidateStore(tmp_path, "r", "c")
    store.write("q", CANDIDATE)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="free some space"):
        write_whole(store.path("q"), fail)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError):
        store.write("q", dataclasses.replace(CANDIDATE, text="other"))
    assert store.read("q") == CANDIDATE
    assert [path.name for path in store.folder.iterdir()] == ["q.json"]


def test_keys_are_of_what_the_model_sees(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    question = Question("1", "type", "What?", (tmp_path / "a.png",), ("red",), "exact")
    key = question_key(question)
    unseen = {"id": "2", "type": "other", "answers": ("blue",), "metric": "anls", "images": (b"picture",)}
    assert question_key(dataclasses.replace(question, **unseen)) == key
    seen = [{"prompt": "What!"}, {"max_tokens": 5}, {"images": ()}, {"images": (b"other",)}]
    others = [question_key(dataclasses.replace(question, **each)) for each in seen]
    assert len({key, question_key(question, context=512), *others}) == 6
    (tmp_path / "a.png").write_bytes(b"changed")
    assert question_key(question) != key
