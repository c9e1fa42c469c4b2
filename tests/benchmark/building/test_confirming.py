"""Confirming answers, in Python, in a terminal and by a pipe; killed, interrupted, twice at once."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from llava_edge.benchmark.accuracy.metrics import score
from llava_edge.benchmark.building.confirming import LONGEST, opened_answers
from llava_edge.benchmark.data.datasets import load_questions
from llava_edge.runtime.errors import DataError, OptionError
from support.own_benchmark import PICTURES, own_benchmark
from support.terminal import START, Terminal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return own_benchmark(tmp_path / "own")


def kept(folder: Path) -> list[tuple[str, bool]]:
    records = json.loads((folder / "questions.json").read_text())
    return [(one["conversations"][1]["value"], one["confirmed"]) for one in records]


def change(folder: Path, number: int, **more: Any) -> None:
    records = json.loads((folder / "questions.json").read_text())
    records[number] |= more
    (folder / "questions.json").write_text(json.dumps(records))


def test_each_answer_is_kept_at_once_and_the_card_at_the_end(folder: Path) -> None:
    before = json.loads((folder / "questions.json").read_text())
    with opened_answers(folder) as answers:
        assert (len(answers), len(answers.unconfirmed)) == (PICTURES, PICTURES)
        one = answers[1]
        assert (one.question, one.answer, one.drafted_by, one.blind) == ("Question 1?", "draft 1", "demo", "said blind")
        assert one.picture == folder / "pictures" / "1.png"
        answers.confirm(1, " ein blauer Würfel \n")
        assert answers[1].blind == ""
        assert kept(folder)[1] == ("ein blauer Würfel", True)
        assert answers[1].confirmed
        assert [one.number for one in answers.unconfirmed] == [0, 2]
    after = json.loads((folder / "questions.json").read_text())
    before[1]["conversations"][1]["value"] = "ein blauer Würfel"
    before[1] |= {"confirmed": True, "blind": "", "drafted_by": ""}
    assert after == before
    card = (folder / "card.md").read_text()
    assert "1 of 3 reference answers" in card
    assert card.endswith("## Licences\nmine\n")
    assert sorted(one.name for one in folder.iterdir()) == ["card.md", "pictures", "questions.json"]
    with opened_answers(folder) as answers:
        for number in (0, 2):
            answers.confirm(number, "x")
    assert "All 3 reference answers" in (folder / "card.md").read_text()


@pytest.mark.parametrize(("answer", "blind"), [("a said blind thing", ""), ("said blind", "said blind")])
def test_a_blind_answer_is_forgotten_with_the_draft_that_it_was(folder: Path, answer: str, blind: str) -> None:
    with opened_answers(folder) as answers:
        assert answers.confirm(1, answer).blind == blind
    assert json.loads((folder / "questions.json").read_text())[1]["blind"] == blind


def test_a_card_that_a_person_rewrote_is_left_alone(folder: Path) -> None:
    for text in ("mine", None):
        if text is None:
            (folder / "card.md").unlink()
        else:
            (folder / "card.md").write_text(text)
        with opened_answers(folder) as answers:
            answers.confirm(0, "x")
        assert (folder / "card.md").exists() is (text is not None)
    assert not (folder / "card.md").exists()


@pytest.mark.parametrize("answer", ["", " \n", "x" * (LONGEST + 1), "\ud800"])
def test_answers_that_are_none(folder: Path, answer: str) -> None:
    with opened_answers(folder) as answers, pytest.raises(OptionError):
        answers.confirm(0, answer)
    assert kept(folder)[0] == ("draft 0", False)


def test_answers_are_held_to_their_metric(folder: Path) -> None:
    change(folder, 0, metric="choice", choices=["red", "blue"], conversations=turns("A"))
    change(folder, 1, metric="number", conversations=turns("3"))
    with opened_answers(folder) as answers:
        for number, wrong, right in ((0, "C", "B"), (1, "many", "four")):
            with pytest.raises(OptionError):
                answers.confirm(number, wrong)
            assert answers.confirm(number, right).confirmed
        with pytest.raises(OptionError):
            answers.confirm(9, "x")
    assert kept(folder)[:2] == [("B", True), ("four", True)]


@pytest.mark.parametrize(
    ("metric", "accepted", "draft", "answer", "kept_too"),
    [
        ("exact", ["grey"], "gray", "silver", []),
        ("exact", ["grey"], "gray", "Gray", ["grey"]),
        ("choice", ["A"], "B", "C", []),
        ("number", ["4"], "3", "5", []),
        ("anls", ["lama"], "llama", "camel", []),
    ],
)
def test_what_was_accepted_goes_with_the_answer_it_stood_beside(
    folder: Path, metric: str, accepted: list[str], draft: str, answer: str, kept_too: list[str]
) -> None:
    choices = ["x", "y", "z"] if metric == "choice" else []
    change(folder, 0, metric=metric, accepted=accepted, choices=choices, conversations=turns(draft))
    with opened_answers(folder) as answers:
        assert answers[0].accepted == tuple(accepted)
        assert answers.confirm(0, answer).accepted == tuple(kept_too)
    question = next(iter(load_questions(str(folder))))
    assert question.answers == (answer, *kept_too)
    for wrong in () if kept_too else (draft, *accepted):
        assert score(question, wrong) == 0
    assert json.loads((folder / "questions.json").read_text())[0]["accepted"] == kept_too


def test_a_number_that_is_none_beside_an_accepted_one(folder: Path) -> None:
    change(folder, 0, metric="number", accepted=["4"], conversations=turns("3"))
    with opened_answers(folder) as answers, pytest.raises(OptionError, match="no number"):
        answers.confirm(0, "zebra")


def test_a_draft_that_stays_keeps_who_wrote_it(folder: Path) -> None:
    with opened_answers(folder) as answers:
        assert answers.confirm(0, "draft 0").drafted_by == "demo"
        assert answers.confirm(1, "mine").drafted_by == ""


@pytest.mark.parametrize("what", ["written", "removed", "folder"])
def test_what_another_program_did_meanwhile_stays(folder: Path, what: str) -> None:
    with opened_answers(folder) as answers:
        answers.confirm(0, "x")
        if what == "written":
            change(folder, 2, type="theirs")
        elif what == "removed":
            (folder / "questions.json").unlink()
        else:
            shutil.rmtree(folder)
        theirs = {one: one.read_bytes() for one in folder.rglob("*.*") if one.is_file() and one.name[0] != "."}
        with pytest.raises(DataError, match="this answer was not kept: what I typed"):
            answers.confirm(1, "what I typed")
    assert {one: one.read_bytes() for one in folder.rglob("*.*") if one.is_file() and one in theirs} == theirs
    assert folder.exists() is (what != "folder")
    assert (folder / "questions.json").exists() is (what == "written")


def test_records_that_cannot_be_asked_are_named_and_counted(folder: Path) -> None:
    (folder / "pictures" / "1.png").unlink()
    done = confirm(folder, "\n\n")
    assert done.returncode == 0
    assert "no picture pictures/1.png" in done.stderr
    assert "2 of 2 answers" in done.stderr
    assert "1 more record can't be asked" in done.stderr
    assert "2 of 3 reference answers" in (folder / "card.md").read_text()


def test_choices_scoring_and_every_picture_are_shown(folder: Path) -> None:
    both = [{"from": "human", "value": "<image>\n<image>\nWhich?"}, {"from": "gpt", "value": "A"}]
    pictures = ["pictures/0.png", "pictures/1.png"]
    change(folder, 0, metric="choice", choices=["red", "blue"], accepted=["B"], image=pictures, conversations=both)
    said = confirm(folder, "/quit\n").stdout
    for words in ("compared as choice", "A: red", "B: blue", "also accepted", "0.png", "1.png"):
        assert words in said


def test_bytes_that_are_no_text_and_a_port_for_no_page(folder: Path) -> None:
    done = subprocess.run(program(folder), input=b"caf\xe9\nfor the next one\n", capture_output=True, timeout=120)
    assert done.returncode == 1
    assert b"expected an answer in UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr
    assert kept(folder)[0] == ("draft 0", False)
    done = subprocess.run([*program(folder), "--port", "8000"], input=b"", capture_output=True, timeout=120)
    assert (done.returncode, b"--page" in done.stderr) == (2, True)


def turns(answer: str, human: str = "from", said: str = "value") -> list[dict[str, str]]:
    names = ("human", "gpt") if human == "from" else ("user", "assistant")
    return [{human: names[0], said: "<image>\nQuestion?"}, {human: names[1], said: answer}]


def test_other_spellings_of_records(folder: Path) -> None:
    records = json.loads((folder / "questions.json").read_text())
    del records[0]["conversations"], records[0]["confirmed"]
    records[0]["messages"] = [{"role": "system", "content": "s"}, *turns("old", "role", "content")][1:]
    records[1]["conversations"] = [
        {"from": "gpt", "value": "hello"},
        *turns("old"),
        {"from": "human", "value": "And?"},
        {"from": "gpt", "value": "later"},
    ]
    records[2] = {"nonsense": True}
    (folder / "questions.json").write_text(json.dumps(records))
    with opened_answers(folder) as answers:
        assert len(answers) == 2
        assert answers[0].confirmed, "without the key an answer is its owner's"
        answers.confirm(0, "new")
        answers.confirm(1, "new")
    after = json.loads((folder / "questions.json").read_text())
    assert after[0]["messages"][1]["content"] == "new"
    said = ["hello", "<image>\nQuestion?", "new", "And?", "later"]
    assert [one["value"] for one in after[1]["conversations"]] == said
    assert after[2] == {"nonsense": True}


def test_places_that_are_no_benchmark(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "gone", tmp_path / "empty", folder / "questions.json"):
        with pytest.raises(DataError), opened_answers(place):
            pass
    assert sorted(one.name for one in folder.iterdir()) == ["card.md", "pictures", "questions.json"]


def test_one_at_a_time(folder: Path) -> None:
    with opened_answers(folder):
        done = confirm(folder, "\n")
        assert done.returncode == 1
        assert "another process" in done.stderr
        assert done.stderr.count("\n") == 1
    assert confirm(folder, "\n").returncode == 0
    assert kept(folder)[0] == ("draft 0", True)


def program(folder: Path) -> list[str]:
    return [sys.executable, "-c", START, "benchmark", "confirm", str(folder)]


def confirm(folder: Path, typed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(program(folder), input=typed, capture_output=True, text=True, timeout=120)


def test_by_a_pipe(folder: Path) -> None:
    done = confirm(folder, "\n/later\n/nonsense\n/back\n//slash\n")
    assert done.returncode == 0
    assert "no such command" in done.stdout
    assert kept(folder) == [("draft 0", True), ("/slash", True), ("draft 2", False)]
    assert f"2 of {PICTURES} answers" in done.stderr
    assert confirm(folder, "/quit\n").returncode == 0
    assert "1 of 1" in confirm(folder, "").stdout


def test_a_reader_that_leaves_is_no_fault_of_the_folder(folder: Path) -> None:
    with pytest.raises(BrokenPipeError), opened_answers(folder):
        raise BrokenPipeError


def test_killed_in_the_middle(folder: Path) -> None:
    process = subprocess.Popen(program(folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("red\n")
    process.stdin.flush()
    while "2 of 3" not in process.stdout.readline():
        pass
    process.kill()
    process.wait(60)
    process.stdin.close()
    process.stdout.close()
    assert kept(folder) == [("red", True), ("draft 1", False), ("draft 2", False)]
    assert confirm(folder, "\n\n").returncode == 0
    assert kept(folder) == [("red", True), ("draft 1", True), ("draft 2", True)]


@pytest.mark.slow
def test_in_a_terminal(folder: Path) -> None:
    terminal = Terminal("benchmark", "confirm", str(folder), folder=folder.parent)
    terminal.wait_for("Question 0?", 120)
    terminal.wait_for_prompt()
    assert "draft 1" in terminal.ask("a red \x1b[31m square".replace("\x1b", ""))
    terminal.type("/edit\r")
    terminal.wait_for("answer> ")
    terminal.type(" and more\r")
    terminal.wait_for("Question 2?")
    terminal.wait_for_prompt()
    terminal.type("half typ")
    terminal.wait_for("half typ")
    time.sleep(0.2)  # readline misses a signal that comes while it takes in what was typed, or before it waits
    terminal.type("\x03")
    assert terminal.finish() == 128 + signal.SIGINT
    assert kept(folder)[1:] == [("draft 1 and more", True), ("draft 2", False)]
    assert "2 of 3 reference answers" in (folder / "card.md").read_text()
