"""How right an answer is: a share from 0 to 1 for each kind of question that needs no judge."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

from ..data.questions import Question
from ..reading.letters import chosen_letter
from ..reading.numbers import read_number
from ..reading.words import normalise

ANLS_THRESHOLD = 0.5
"""Normalised distance from which an answer counts as wrong, not as misspelt."""


def score(question: Question, answer: str) -> float | None:
    """The share of ``question`` that ``answer`` earns; None where only a judge can say."""
    if question.metric == "judged":
        return None
    if question.metric == "choice":
        letters = {one.strip().upper() for one in question.answers}
        return float(chosen_letter(answer, question.choices) in letters)
    measure = {"exact": exact, "number": number, "anls": anls}[question.metric]
    return measure(answer, question.answers)


def exact(answer: str, accepted: Sequence[str]) -> float:
    """1 where ``answer`` equals an accepted one after ``normalise`` (``benchmark/reading/words``)."""
    return float(normalise(answer) in {normalise(one) for one in accepted})


def number(answer: str, accepted: Sequence[str]) -> float:
    """1 where the number that ``answer`` states equals an accepted one at that one's precision.

    As MathVista's evaluation, an answer is rounded to the decimals of the expected one: 3.14159
    equals 3.14, and 3.1 does not. Unlike there, a whole number must be met exactly: 2.6 is not 3.
    """
    got = read_number(answer)
    if got is None:
        return 0.0
    expected = [value for value in map(read_number, accepted) if value is not None]
    return float(any(_same_number(got, one) for one in expected))


def _same_number(got: Decimal, expected: Decimal) -> bool:
    exponent = expected.as_tuple().exponent
    if not isinstance(exponent, int) or exponent >= 0:
        return got == expected
    try:
        return got.quantize(expected, ROUND_HALF_EVEN) == expected
    except InvalidOperation:  # more digits than a decimal holds
        return False


def anls(answer: str, accepted: Sequence[str]) -> float:
    """Normalised Levenshtein similarity to the nearest accepted answer, 0 below one half.

    Source: Biten et al., Scene Text Visual Question Answering (ICCV 2019), equation 1. Case and
    the number of spaces don't count, as in its evaluation server.
    """
    return max((_similarity(_spaced(answer), _spaced(one)) for one in accepted), default=0.0)


def _spaced(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(one: str, other: str) -> float:
    longest = max(len(one), len(other))
    if longest == 0:
        return 1.0
    away = edit_distance(one, other) / longest
    return 1.0 - away if away < ANLS_THRESHOLD else 0.0


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's distance: insertions, deletions and replacements, by the usual two rows."""
    before = list(range(len(other) + 1))
    for index, char in enumerate(one, start=1):
        row = [index]
        for column, against in enumerate(other, start=1):
            row.append(min(before[column] + 1, row[-1] + 1, before[column - 1] + (char != against)))
        before = row
    return before[-1]
