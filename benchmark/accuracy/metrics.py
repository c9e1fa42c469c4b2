"""How right an answer is: a share from 0 to 1 for each kind of question that needs no judge."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

from ..data.questions import Question

ANLS_THRESHOLD = 0.5
"""Normalised distance from which an answer counts as wrong, not as misspelt."""
_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
NUMBER_WORDS = {word: str(value) for value, word in enumerate(_WORDS)}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = re.compile(r"(?<!\d)(?!(?<!\S)-\d)[^\w\s]|[^\w\s](?!\d)|_")
_NUMBER = re.compile(r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?")
_FRACTION = re.compile(r"([-+−]?\d+)\s*/\s*(\d+)")


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
    """1 where ``answer`` equals an accepted one after :func:`normalise`."""
    return float(normalise(answer) in {normalise(one) for one in accepted})


def normalise(text: str) -> str:
    """Lower case, number words as digits, without articles and punctuation, single spaces.

    The rules of the VQA evaluation (https://visualqa.org/evaluation.html), but for its table of
    contractions. A point or comma between digits stays, and a minus before them. What would leave
    nothing is left as it is.
    """
    lowered = unicodedata.normalize("NFKC", text).lower().strip()
    plain = _PUNCTUATION.sub(" ", lowered)
    words = [NUMBER_WORDS.get(word, word) for word in plain.split() if word not in _ARTICLES]
    return " ".join(words) or " ".join(plain.split()) or lowered


def chosen_letter(answer: str, choices: Sequence[str]) -> str | None:
    """The letter that ``answer`` chooses among ``choices`` (A first), or None.

    In this order: a letter alone; the text of one choice; a letter set off at the start ("B.",
    "(B) blue"); the last "answer is B" or "option B"; the only choice whose text occurs. An answer
    that says none of these is wrong; no guess is drawn for it as MMMU's own evaluation does.
    """
    letters = string.ascii_uppercase[: len(choices)] if choices else string.ascii_uppercase
    stripped = answer.strip()
    alone = re.fullmatch(rf"[\s(\[*]*([{letters}{letters.lower()}])[\s)\].:,*]*", stripped)
    if alone:
        return alone[1].upper()
    texts = [normalise(one) for one in choices]
    given = normalise(stripped)
    if texts.count(given) == 1:
        return letters[texts.index(given)]
    start = re.match(rf"\(([{letters}])\)|\**([{letters}])[.):,](?:\s|\*|$)", stripped)
    if start:
        return start[1] or start[2]
    said = re.findall(rf"(?:answer(?: is|:)?|option|choice)[\s:*(]*([{letters}])\b", stripped, re.ASCII)
    if said:
        return str(said[-1])
    found = [letter for letter, text in zip(letters, texts, strict=False) if _contains(given, text)]
    return found[0] if len(found) == 1 else None


def _contains(text: str, words: str) -> bool:
    return bool(words) and f" {words} " in f" {text} "


def number(answer: str, accepted: Sequence[str]) -> float:
    """1 where the last number in ``answer`` equals an accepted one at that one's precision.

    As MathVista's evaluation, an answer is rounded to the decimals of the expected one: 3.14159
    equals 3.14, and 3.1 does not. Unlike there, a whole number must be met exactly: 2.6 is not 3.
    Thousands commas, number words, "3/4" and "2e5" are read.
    """
    got = read_number(answer)
    if got is None:
        return 0.0
    expected = [value for value in map(read_number, accepted) if value is not None]
    return float(any(_same_number(got, one) for one in expected))


def read_number(text: str) -> Decimal | None:
    """The last number that ``text`` states, or None."""
    words = [NUMBER_WORDS.get(word.strip(string.punctuation).lower(), word) for word in text.split()]
    plain = " ".join(words).replace("−", "-")
    fractions = list(_FRACTION.finditer(plain))
    numbers = [match for match in _NUMBER.finditer(plain) if any(char.isdigit() for char in match[0])]
    if fractions and fractions[-1].end() >= numbers[-1].end() and int(fractions[-1][2]):
        return Decimal(fractions[-1][1]) / Decimal(fractions[-1][2])
    if not numbers:
        return None
    last = numbers[-1]
    # a hyphen behind a letter or digit is a dash ("3-5", "route-7"), not a sign
    dashed = last[0][0] in "-+" and last.start() > 0 and plain[last.start() - 1].isalnum()
    return Decimal(last[0][1 if dashed else 0 :].replace(",", ""))


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
