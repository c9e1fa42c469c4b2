"""Letters that answers choose: decided by hand, and beside lmms-eval's two readers of such answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llava_edge.benchmark.reading.letters import chosen_letter
from support.choice_answers import ANSWERS, CHOICES
from support.lmms_eval_parsers import GUESS, VERSION, load_parsers, outcomes

RECORDED = json.loads((Path(__file__).parents[2] / "support" / "choice_outcomes.json").read_text())
DIFFERENT = 25
"""Answers from which both of its readers take one letter and we another, or none; see ``docs/benchmark-data.md``."""


@pytest.mark.parametrize(("choices", "answer", "letter"), ANSWERS)
def test_letters_are_those_decided_by_hand(choices: str, answer: str, letter: str | None) -> None:
    assert chosen_letter(answer, CHOICES[choices]) == letter


@pytest.fixture(scope="module")
def theirs() -> dict[str, list[str]]:
    """What lmms-eval reads, from itself where it is installed; else what it read when that was recorded."""
    parsers = load_parsers()
    return {name: RECORDED[name] for name in ("mmmu", "realworldqa")} if parsers is None else outcomes(parsers)


def test_the_record_is_what_lmms_eval_says(theirs: dict[str, list[str]]) -> None:
    assert {"lmms-eval": VERSION, **theirs} == RECORDED


def test_where_lmms_evals_readers_agree_so_do_we_but_for_what_is_documented(theirs: dict[str, list[str]]) -> None:
    assert len(set(ANSWERS)) == len(ANSWERS) >= 200
    different = [
        answer
        for (choices, answer, _), mmmu, other in zip(ANSWERS, theirs["mmmu"], theirs["realworldqa"], strict=True)
        if mmmu == other and mmmu not in (GUESS, "") and mmmu != chosen_letter(answer, CHOICES[choices])
    ]
    assert len(different) == DIFFERENT, different


@pytest.mark.parametrize(
    "text",
    [
        "the answer is ",
        ":",
        "(A) ",
        "A, ",
        " ",
        "option ",
        "not ",
        "\n",
        "**",
        "\\text{",
        "\\boxed{",
        "<think>",
        "blue ",
        "(",
    ],
)
def test_no_answer_takes_for_ever(text: str) -> None:
    assert chosen_letter(text * 20000, CHOICES["colours"]) in (None, "A", "C")
