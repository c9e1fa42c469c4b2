"""English number words as digits: "one hundred and five", "two and a half", "2.5 million", "a dozen"."""

from __future__ import annotations

import re
from decimal import Decimal

from .words import NUMBER_WORDS

_TENS = {
    "thirty": 30, "forty": 40, "fourty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_SMALL = {word: int(value) for word, value in NUMBER_WORDS.items()} | _TENS
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": "1/2", "halves": "1/2", "third": "1/3", "thirds": "1/3", "quarter": "1/4", "quarters": "1/4"}
_WORD = "|".join(sorted((*_SMALL, *_SCALES, "hundred", "dozen"), key=len, reverse=True))
_SPOKEN = re.compile(
    rf"(?<![\w-])(?:(?P<sign>minus|negative)\s+)?(?P<words>(?:an?\s+(?=(?:hundred|thousand|million|billion|dozen)\b))?"
    rf"(?:{_WORD})(?:(?:\s*-\s*|\s+(?:and\s+)?)(?:{_WORD}))*)(?P<half>\s+and\s+(?:a\s+|one\s+)?half)?(?![\w])(?!-[a-z])",
    re.IGNORECASE,
)
_PART = re.compile(
    rf"(?<![\w-])(?<!and )(?P<top>an?|{'|'.join(list(NUMBER_WORDS)[1:10])})[\s-]+(?P<part>{'|'.join(_PARTS)})\b(?!-)"
    r"|(?<![\w-])(?<!and )(?<!and a )half\b(?=\s*(?:$|[.!,]|of\b|an?\b))",
    re.IGNORECASE,
)
_SCALED = re.compile(r"(?<![\d.,])(\d[\d.,]*)\s*(hundred|thousand|million|billion|trillion|dozen)\b", re.IGNORECASE)
_AND_HALF = re.compile(r"(?<![\d.,/])(\d+)\s+and\s+(?:a\s+|one\s+)?half\b", re.IGNORECASE)
_SIGN = re.compile(r"\b(?:minus|negative)\s+(?=[$€£]?\d)", re.IGNORECASE)


def spoken_as_digits(text: str) -> str:
    """``text`` with its number words as digits. "one" beside a noun is a number too, as VQA's evaluation has it."""
    text = _AND_HALF.sub(r"\1.5", _SCALED.sub(_scaled, text))
    text = _SPOKEN.sub(_digits, _PART.sub(_part, text))
    return _SIGN.sub("-", text) if not re.match(r".*\d\s*minus\s", text, re.DOTALL | re.IGNORECASE) else text


def _digits(match: re.Match[str]) -> str:
    words = [word for word in re.split(r"[\s-]+", match["words"].lower()) if word not in ("and", "a", "an")]
    numbers = _values(words)
    spelt = " ".join(map(str, numbers))
    if match["half"]:
        spelt += ".5"
    return f"{'-' if match['sign'] else ''}{spelt}"


def _values(words: list[str]) -> list[int]:
    """The numbers that a run of words says: one, or several where they do not make one ("two three")."""
    done: list[int] = []
    total, current, last = 0, None, 0
    for word in words:
        if word in _SMALL:
            value = _SMALL[word]
            fits = current is None or (last >= 100) or (20 <= last < 100 and 0 < value < 10)
            if not fits:
                done.append(total + (current or 0))
                total, current = 0, None
            current, last = (current or 0) + value, value
        elif word in ("hundred", "dozen"):
            size = 100 if word == "hundred" else 12
            current, last = (1 if current is None else current) * size, size if size == 100 else 12
        else:
            total += (1 if current is None else current) * _SCALES[word]
            current, last = None, 1000
    return [*done, total + (current or 0)]


def _part(match: re.Match[str]) -> str:
    top = (match["top"] or "one").lower()
    number = "1" if top in ("a", "an") else NUMBER_WORDS[top]
    return f"{number}/{_PARTS[(match['part'] or 'half').lower()].partition('/')[2]}"


def _scaled(match: re.Match[str]) -> str:
    """ "2.5 million"; a comma in it separates thousands."""
    digits = match[1].rstrip(".,").replace(",", "")
    scale = {**_SCALES, "hundred": 100, "dozen": 12}[match[2].lower()]
    try:
        value = Decimal(digits) * scale
    except ArithmeticError:
        return match[0]
    return f"{value.normalize():f}"
