"""The demo table: scored against questions whose right answers are known here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llava_edge.benchmark import demo
from llava_edge.runtime.errors import DataError
from support.published_data import png


def record(kind: str, answer: str, image: str = "a.png") -> dict[str, object]:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": answer}]
    return {"id": "1", "image": image, "conversations": turns, "type": kind}


def test_scores_count_right_answers_and_the_best_blind_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record("read", word) for word in ("cat", "cat", "dog", "sun")] + [record("count", "2")]
    (tmp_path / "questions.json").write_text(json.dumps(records))
    (tmp_path / "a.png").write_bytes(png(1))

    class Stub:
        """Answers "Cat." whatever is asked; with the overview alone, nothing."""

        def __enter__(self) -> Stub:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(demo, "load", lambda _: Stub())
    monkeypatch.setattr(demo, "_ask", lambda _model, _question, overview: "" if overview else "Cat.")
    count, read = demo.score_demo(None, data=str(tmp_path))
    assert (read.questions, read.tiles, read.overview, read.chance) == (4, 0.5, 0.0, 0.5)
    assert (count.questions, count.tiles, count.chance) == (1, 0.0, 1.0)
    assert "40.0%" in demo.table([count, read]).splitlines()[-1]


def test_missing_questions_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"questions\.json"):
        demo.score_demo(None, data=str(tmp_path))


@pytest.mark.slow
def test_the_demo_bundle_sees() -> None:
    """On a part of the held-out set: well above the best blind guess in every type, and signs need tiles."""
    scores = {score.type: score for score in demo.score_demo(None, limit=33)}
    assert {score.questions for score in scores.values()} == {33}
    for score in scores.values():
        assert score.tiles >= score.chance + 0.15, score
    assert scores["read"].tiles >= scores["read"].overview + 0.5
