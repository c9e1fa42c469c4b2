"""Scores of answers against values worked out by hand."""

from __future__ import annotations

import functools
import itertools
from decimal import Decimal

import pytest
from llava_edge.benchmark.accuracy.metrics import anls, chosen_letter, edit_distance, exact, number, read_number, score
from llava_edge.benchmark.data.questions import Metric, Question

COLOURS = ("red", "dark blue", "blue", "a green one")


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("Red.", ["red"], True),
        (" The  red ", ["Red"], True),
        ("two", ["2"], True),
        ("2", ["Two"], True),
        ("top-left", ["top left"], True),
        ("ＥＸＩＴ", ["exit"], True),
        ("3.5", ["35"], False),
        ("-5", ["5"], False),
        ("A", ["the"], False),
        ("a", ["A"], True),
        ("red", ["blue", "red"], True),
        ("dark red", ["red"], False),
        ("", ["red"], False),
        ("red", [], False),
    ],
)
def test_exact(answer: str, accepted: list[str], right: bool) -> None:
    assert exact(answer, accepted) == float(right)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(c)", "C"),
        ("b.", "B"),
        ("**D**", "D"),
        ("Dark blue.", "B"),
        ("blue", "C"),
        ("B. dark blue", "B"),
        ("(A) because it is red", "A"),
        ("The answer is C", "C"),
        ("Not option A; the answer is B.", "B"),
        ("I think it is red", "A"),
        ("A blue car", "C"),
        ("red or blue", None),
        ("E", None),
        ("I do not know", None),
        ("", None),
    ],
)
def test_choices(answer: str, letter: str | None) -> None:
    assert chosen_letter(answer, COLOURS) == letter


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("7", "7"),
        ("about 1,234.50 metres", "1234.50"),
        ("3 + 4 = 7.", "7"),
        ("-2", "-2"),
        ("−2", "-2"),
        ("between 3-5", "5"),
        ("seventeen", "17"),
        ("There are three.", "3"),
        ("3/4", "0.75"),
        ("1 / 0", "0"),
        (".5", "0.5"),
        ("2e3", "2000"),
        ("45%", "45"),
        ("12.", "12"),
        ("none", None),
        ("", None),
    ],
)
def test_numbers_are_read(answer: str, value: str | None) -> None:
    assert read_number(answer) == (None if value is None else Decimal(value))


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("3.14159", "3.14", True),
        ("3.1", "3.14", False),
        ("3.140", "3.14", True),
        ("2.6", "3", False),
        ("3.0", "3", True),
        ("1,000", "1000", True),
        ("0.125", "0.12", True),  # half to even
        ("x", "3", False),
        ("1e40", "0.5", False),
    ],
)
def test_numbers_are_compared_at_the_expected_precision(answer: str, expected: str, right: bool) -> None:
    assert number(answer, [expected]) == float(right)


def test_anls() -> None:
    assert anls("Coca Cola", ["coca  cola"]) == 1.0
    assert anls("coca cola", ["pepsi", "coca-cola"]) == pytest.approx(1 - 1 / 9)
    assert anls("ab", ["ax"]) == 0.0  # a distance of one half is too far
    assert anls("abc", ["abx"]) == pytest.approx(2 / 3)
    assert anls("", [""]) == 1.0
    assert anls("word", [""]) == anls("word", []) == 0.0


def test_edit_distance_is_its_recursive_definition() -> None:
    @functools.cache
    def by_definition(one: str, other: str) -> int:
        if not one or not other:
            return len(one) + len(other)
        return min(
            by_definition(one[1:], other) + 1,
            by_definition(one, other[1:]) + 1,
            by_definition(one[1:], other[1:]) + (one[0] != other[0]),
        )

    words = ["".join(letters) for length in range(5) for letters in itertools.product("ab", repeat=length)]
    assert all(edit_distance(one, other) == by_definition(one, other) for one in words for other in words)


@pytest.mark.parametrize(
    ("metric", "accepted", "answer", "expected"),
    [
        ("exact", ("red",), "Red", 1.0),
        ("choice", ("B",), "dark blue", 1.0),
        ("choice", ("A",), "dark blue", 0.0),
        ("choice", ("A",), "no idea", 0.0),
        ("number", ("3", "4"), "four", 1.0),
        ("anls", ("abc",), "abx", 2 / 3),
        ("judged", ("It is red.",), "It is red.", None),
    ],
)
def test_each_question_is_scored_by_its_metric(
    metric: Metric, accepted: tuple[str, ...], answer: str, expected: float | None
) -> None:
    question = Question("1", "type", "What?", (), accepted, metric, COLOURS)
    assert score(question, answer) == pytest.approx(expected)
