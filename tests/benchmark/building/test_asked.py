"""Questions of a file, and what answers given without the picture are worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.benchmark.building.agreement import agree
from llava_edge.benchmark.building.asked import OPEN_QUESTION, Item, open_questions, read_asked, with_more_questions
from llava_edge.benchmark.building.asking import EndpointAsker, blind_answer, proposed_questions
from llava_edge.benchmark.building.confirming import opened_answers
from llava_edge.benchmark.building.embedding import QUESTION_DIMENSIONS, projected
from llava_edge.benchmark.building.work import Work
from llava_edge.benchmark.judging.endpoint import Endpoint, EndpointOptions
from llava_edge.runtime.errors import DataError
from support.judge_server import Answer, judge_server
from support.own_benchmark import own_benchmark

KNOWN = {"a.png": "a.png", "copy.png": "a.png", "sub/b.png": "sub/b.png"}


def read(folder: Path, records: Any, name: str = "asked.json") -> Any:
    file = folder / name
    file.write_text(records if isinstance(records, str) else json.dumps(records))
    return read_asked(file, folder, KNOWN)


def test_open_questions() -> None:
    assert open_questions(["a.png"]) == [Item("a.png", OPEN_QUESTION)]


def test_records(tmp_path: Path) -> None:
    records = [
        {
            "image": "a.png",
            "question": "<image>\nWhat colour?",
            "answer": "red",
            "type": "colours",
            "accepted": ["scarlet"],
        },
        {"image": "sub/b.png", "question": "Tell me.", "answer": "It is a cup of coffee on a table."},
        {"image": "copy.png", "question": "How many?", "answer": 3, "metric": "number", "max_tokens": 9},
        {"image": "copy.png", "question": "Who?"},
        {"image": "a.png", "question": "Which?", "answer": "B", "metric": "choice", "choices": ["x", "y"]},
        {"image": "a.png", "question": "Really?", "answer": "yes", "confirmed": False},
    ]
    first, second, third, fourth, fifth, sixth = read(tmp_path, records).items
    assert (first.question, first.metric, first.confirmed, first.type) == ("What colour?", "exact", True, "colours")
    assert first.asked(Path("x")).answers == ("red", "scarlet")
    assert (second.name, second.metric, second.confirmed) == ("sub/b.png", "judged", True)
    assert (third.name, third.answer, third.metric, third.asked(Path("x")).max_tokens) == ("a.png", "3", "number", 9)
    assert (fourth.answer, fourth.metric, fourth.confirmed) == ("", "judged", False)
    assert (fifth.metric, fifth.asked(Path("x")).choices) == ("choice", ("x", "y"))
    assert not sixth.confirmed


@pytest.mark.parametrize("ends", ["\n", ""])
@pytest.mark.parametrize("count", [1, 3])
def test_lines(tmp_path: Path, count: int, ends: str) -> None:
    lines = [json.dumps({"image": "a.png", "question": f"Number {one}?"}) for one in range(count)]
    assert len(read(tmp_path, "\n".join(lines) + ends, "asked.jsonl").items) == count


def test_a_question_counts_once_and_with_its_answer(tmp_path: Path) -> None:
    records = [
        {"image": "a.png", "question": "What colour?"},
        {"image": "copy.png", "question": "what colour", "answer": "red"},
        {"image": "sub/b.png", "question": "What colour?"},
    ]
    found = read(tmp_path, records).items
    assert [(one.name, one.answer) for one in found] == [("a.png", "red"), ("sub/b.png", "")]


def test_two_answers_to_one_question_are_named(tmp_path: Path) -> None:
    one = {"image": "a.png", "question": "What colour?"}
    found = read(tmp_path, [one | {"answer": "blue", "confirmed": False}, one, one | {"answer": "red"}])
    assert [(one.answer, one.confirmed) for one in found.items] == [("red", True)]
    assert len(found.left_out) == 1
    assert "record 2" in found.left_out[0]
    assert found.left_out[0].index("red") < found.left_out[0].index("blue")
    assert read(tmp_path, [one | {"answer": "red"}, one | {"answer": "Red."}, one]).left_out == ()


def test_what_a_build_wrote_is_taken_over(tmp_path: Path) -> None:
    own = own_benchmark(tmp_path / "own")
    with opened_answers(own) as answers:
        answers.confirm(1, "a blue square")
    photos = {f"{number}.png": f"{number}.png" for number in range(3)}
    found = read_asked(own / "questions.json", tmp_path, photos)
    assert found.left_out == ()
    assert [(one.name, one.question, one.answer, one.confirmed, one.drafted_by) for one in found.items] == [
        ("0.png", "Question 0?", "draft 0", False, "demo"),
        ("1.png", "Question 1?", "a blue square", True, ""),
        ("2.png", "Question 2?", "draft 2", False, "demo"),
    ]
    assert {(one.type, one.metric, one.blind) for one in found.items} == {("all", "judged", "")}


@pytest.mark.parametrize("turns", [3, [], [3, 4], [{"value": "x?"}], [{"value": 3}, {"value": "x"}]])
def test_conversations_that_are_none(tmp_path: Path, turns: Any) -> None:
    with pytest.raises(DataError, match="record 0"):
        read(tmp_path, [{"image": "a.png", "conversations": turns}])


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (3, "no object"),
        ({"question": "x?"}, "no image"),
        ({"image": "a.png"}, "no question"),
        ({"image": "gone.png", "question": "x?"}, "not among the photographs"),
        ({"image": "../a.png", "question": "x?"}, "not among the photographs"),
        ({"image": "/etc/passwd", "question": "x?"}, "not among the photographs"),
        ({"image": "a.png", "question": ["x"]}, "no text"),
        ({"image": "a.png", "question": "x?", "answer": ["x"]}, "no text"),
        ({"image": "a.png", "question": "\ud800?"}, "no text"),
        ({"image": "a.png", "question": "x?", "metric": "best"}, "metric"),
        ({"image": "a.png", "question": "x?", "metric": "number"}, "no answer"),
        ({"image": "a.png", "question": "x?", "metric": "number", "answer": "red"}, "no number"),
        ({"image": "a.png", "question": "x?", "metric": "choice", "answer": "C", "choices": ["x"]}, "choices"),
        ({"image": "a.png", "question": "x?", "accepted": "red"}, "no list"),
        ({"image": "a.png", "question": "x?", "max_tokens": 0}, "max_tokens"),
        ({"image": "a.png", "question": "x?", "confirmed": "yes"}, "confirmed"),
        ({"image": "a.png", "question": "x?", "anwser": "red"}, "anwser"),
    ],
)
def test_records_that_are_none(tmp_path: Path, record: Any, words: str) -> None:
    """One of several is left out and named; alone it is the error."""
    found = read(tmp_path, [record, {"image": "a.png", "question": "Fine?"}])
    assert [one.question for one in found.items] == ["Fine?"]
    assert len(found.left_out) == 1
    assert words in found.left_out[0]
    assert "record 0" in found.left_out[0]
    with pytest.raises(DataError, match="record 0"):
        read(tmp_path, [record])


def test_more_questions_stand_behind_those_of_their_picture() -> None:
    items = [Item("a", "One?"), Item("b", "One?", type="t"), Item("a", "Two?")]
    more = with_more_questions(items, {"a": ["two", "Three?"], "b": ["Four?", "Four?"]})
    assert [(one.name, one.question) for one in more] == [
        ("a", "One?"), ("b", "One?"), ("b", "Four?"), ("a", "Two?"), ("a", "Three?"),
    ]  # fmt: skip
    assert more[2].type == "t"


def test_what_was_proposed() -> None:
    lines = ["Here they are:", "1. What colour is it?", "- **Who stands there?**", '"What colour is it?"', "3) What?"]
    said = "\n".join([*lines, "Q4: And what then?", "5. Is that the last one?"])
    assert proposed_questions(said) == ("What colour is it?", "Who stands there?", "And what then?")
    assert proposed_questions("no questions, ok") == ()


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("The car is red.", "red", True),
        ("It is darkred", "red", False),
        ("two dogs", "2 dogs", True),
        ("A cat sits on the mat.", "The cat sits on a mat", True),
        ("A cat sits on the mat.", "A dog lies in the yard of a house", False),
        ("", "red", False),
        ("yes", "a long sentence about yes and other things", False),
    ],
)
def test_answers_that_agree(answer: str, reference: str, same: bool) -> None:
    assert agree(answer, reference) is same


class Said:
    name = "said"

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def answer(self, prompt: str, pictures: Any, max_tokens: int) -> str:
        assert not pictures
        return self._answer


def test_blind_answers_are_held_to_the_metric() -> None:
    number = Item("a", "How many?", "3", metric="number").asked(Path("a"))
    assert blind_answer(Said("There are three."), number, "3") == "There are three."
    assert blind_answer(Said("There are 4."), number, "3") == ""
    choice = Item("a", "Which?", "B", metric="choice", more={"choices": ["x", "y"]}).asked(Path("a"))
    assert blind_answer(Said("The answer is B."), choice, "B")
    assert not blind_answer(Said("A"), choice, "B")
    assert blind_answer(Said("anything"), Item("a", "What?").asked(Path("a")), "") == ""


@pytest.mark.parametrize(
    ("said", "draft"), [(" a cup ", "a cup"), ("x" * 8000, "x" * 8000), ("x" * 8001, ""), ("a \ud800", "a ?")]
)
def test_drafts_of_an_endpoint_are_answers(tmp_path: Path, said: str, draft: str) -> None:
    with judge_server(Answer(said)) as (url, _):
        asker = EndpointAsker(Endpoint(EndpointOptions(url, "large")), Work(tmp_path / "own"))
        assert asker.answer("What is it?", (), 9) == draft


def test_projections_keep_distances() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(6, 20_000)).astype(np.float32)
    shorter = [projected(one) for one in rows]
    assert shorter[0].shape == (QUESTION_DIMENSIONS,)
    for one, other in ((0, 1), (2, 5), (3, 4)):
        kept = np.linalg.norm(shorter[one] - shorter[other]) / np.linalg.norm(rows[one] - rows[other])
        assert kept == pytest.approx(1, abs=0.25)
