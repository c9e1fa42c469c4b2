"""The demo table: scored against questions whose right answers are known here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llava_edge.benchmark import demo
from llava_edge.benchmark.data.heldout import read_questions
from llava_edge.runtime.errors import OptionError


def record(kind: str, answer: str, image: str = "a.png") -> dict[str, object]:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": answer}]
    return {"id": "1", "image": image, "conversations": turns, "type": kind}


def test_scores_count_right_answers_and_the_best_blind_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record("read", word) for word in ("cat", "cat", "dog", "sun")] + [record("count", "2")]
    (tmp_path / "questions.json").write_text(json.dumps(records))

    class Stub:
        """Answers "Cat." whatever is asked; with the overview alone, nothing."""

        def __enter__(self) -> Stub:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(demo, "load", lambda _: Stub())
    monkeypatch.setattr(demo, "_ask", lambda _model, _folder, _record, overview: "" if overview else "Cat.")
    count, read = demo.measure(None, folder=tmp_path)
    assert (read.questions, read.tiles, read.overview, read.chance) == (4, 0.5, 0.0, 0.5)
    assert (count.questions, count.tiles, count.chance) == (1, 0.0, 1.0)
    assert "40.0%" in demo.table([count, read]).splitlines()[-1]


def test_limit_counts_by_type(tmp_path: Path) -> None:
    (tmp_path / "questions.json").write_text(json.dumps([record("read", "a")] * 3 + [record("count", "1")] * 3))
    assert [one["type"] for one in read_questions(tmp_path, 2)] == ["read", "read", "count", "count"]


def test_missing_questions_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"questions\.json"):
        read_questions(tmp_path)


@pytest.mark.slow
def test_the_demo_bundle_sees() -> None:
    """On the held-out set: well above the best blind guess in every type, and signs need tiles."""
    scores = {one.type: one for one in demo.measure(None)}
    for score in scores.values():
        assert score.tiles >= score.chance + 0.15, score
    assert scores["read"].tiles >= scores["read"].overview + 0.5
