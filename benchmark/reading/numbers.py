"""Which number an answer in free words states."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from .number_words import spoken_as_digits
from .words import final_part, without_markup

_SPACE = "[ \u00a0\u2009\u202f\u2007]"
_WHOLE = (
    r"\d{1,3}(?:,\d{3})+(?![\d,])|\d{1,2}(?:,\d{2})+,\d{3}(?![\d,])"  # 1,234,567 and India's 12,34,567
    r"|\d{1,3}(?:['’]\d{3})+(?!\d)"  # 1'234 as the Swiss write it
)
_GROUPED = rf"\d{{1,3}}(?:{_SPACE}\d{{3}})+(?!{_SPACE}?\d)"
_EUROPEAN = r"\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}(?![\d.])"
"""1.234,5 and 1.234.567; "1.234" alone is a decimal, as in English."""
_COMMA = (
    rf"(?<![\d,])(?:\d+|{_GROUPED}),(?!\d{{3}}(?!\d))\d+(?![\d,]|,\d)"
    r"|(?<![\d,])(?:0|\d{4,}),\d+(?!,?\d)"
)
"""A decimal comma: behind it are not three digits, or what is in front of it is no group of thousands."""
_NUMBER = re.compile(
    rf"(?:[$€£¥]{_SPACE}?)?(?P<sign>[-+])?(?:[$€£¥]{_SPACE}?)?(?P<digits>"
    rf"(?:{_EUROPEAN}|{_COMMA}|(?:{_WHOLE}|{_GROUPED}|\d+)?(?:\.\d+|(?<=\d)))(?:[eE][-+]?\d+)?)"
)
_FRACTION = re.compile(
    rf"(?P<sign>[-+])?(?<!\d)(?:(?P<whole>\d+){_SPACE}+(?:and{_SPACE}+)?)?"
    rf"(?P<top>\d+){_SPACE}?[/⁄]{_SPACE}?(?P<bottom>\d+)(?![\d/⁄]|\.\d)"
)
_TIMES_TEN = re.compile(r"(?<=\d)\s*(?:[x×*·]|\\times|\\cdot)\s*10\s*\^\s*\{?([-+−]?\d+)\}?")
_TEN_TO = re.compile(r"(?<![\d.,])10\s*\^\s*\{?([-+−]?\d+)\}?")
_NO_NUMBER = re.compile(
    r"(?<![\d:])\d{1,4}:\d{1,4}(?::\d{1,2})?(?![\d:])"  # a time, a ratio
    r"|(?<=[A-Za-z)])\^\{?-?\d+\}?"  # cm^2
    r"|(?<![\d/.-])\d{1,4}([/.-])\d{1,2}\1\d{2,4}(?![\d/-])(?!\.\d)"  # a date
)
_LIST = re.compile(r"[\[({](?:\s*-?\d+(?:\.\d+)?\s*,)+\s*-?\d+(?:\.\d+)?\s*[\])}]")
_ANSWER = re.compile(
    r"\b(?:answer|ans|result|value|total|sum|solution|number|count|réponse|respuesta|antwort)\b"
    r"[^.\n\d=:]{0,40}?(?:\b(?:is|are|equals|est|es|ist)\b|=|:)",
    re.IGNORECASE,
)
_CONCLUDED = re.compile(
    r"=|≈|\b(?:so|thus|therefore|hence|total|altogether|makes?|equals?|gives?|sum|in all|"
    r"leaves?|is|are|was|were|becomes?)\b",
    re.IGNORECASE,
)
_ARITHMETIC = re.compile(
    r"\s*(?:[-+*/×÷–]\s*\d|(?:plus|minus|times|divided)\b|(?:and|to|or|,)\s*[-$€£]?\d)", re.IGNORECASE
)
"""What behind a number says that it is one of several: a term, an end of a range, an item of a list."""
_VULGAR = {
    "½": "1⁄2", "⅓": "1⁄3", "⅔": "2⁄3", "¼": "1⁄4", "¾": "3⁄4", "⅕": "1⁄5", "⅖": "2⁄5", "⅗": "3⁄5", "⅘": "4⁄5",
    "⅙": "1⁄6", "⅚": "5⁄6", "⅐": "1⁄7", "⅛": "1⁄8", "⅜": "3⁄8", "⅝": "5⁄8", "⅞": "7⁄8", "⅑": "1⁄9", "⅒": "1⁄10",
}  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")


@dataclass(frozen=True)
class _Found:
    value: Decimal
    start: int
    end: int


def read_number(text: str) -> Decimal | None:
    """The number that ``text`` states, or None.

    That is the one behind the last "the answer is" (or total, result ...); else the first where the answer begins with
    it and draws no conclusion later ("12.50 dollars for 3 items"); else the last. Read are thousands separated by
    commas, points, apostrophes or spaces, a decimal comma that is none of those, fractions, mixed numbers, powers of
    ten, and English number words. A time or ratio (3:15), a date and the exponent of a unit are no numbers.
    """
    plain = _plain(final_part(text))
    found = sorted(_numbers(plain), key=lambda one: one.start)
    if not found:
        return None
    for cue in reversed(list(_ANSWER.finditer(plain))):
        line = plain.find("\n", len(plain) - len(plain[cue.end() :].lstrip()))
        behind = [one for one in found if cue.end() <= one.start and (line < 0 or one.start < line)]
        if behind:
            return _stated(behind, plain, cue.end()).value
    return _stated(found, plain, 0).value


def _stated(found: list[_Found], plain: str, start: int) -> _Found:
    """The first number where the text from ``start`` begins with it and concludes nothing else, or the last."""
    first, last = found[0], found[-1]
    begins = not re.search(r"\w", plain[start : first.start])
    between = plain[first.end : last.start]
    if begins and not _CONCLUDED.search(between) and not _ARITHMETIC.match(plain, first.end):
        return first
    return last


def _plain(text: str) -> str:
    """``text`` with one spelling for what is written in many ways; what is no number is blanked, in place."""
    text = _LATEX_FRACTION.sub(r" \1/\2 ", text).replace("{,}", ",").replace(r"\%", "%").replace(r"\$", "$")
    for sign, spelt in _VULGAR.items():
        text = text.replace(sign, f" {spelt}")
    text = re.sub(r"(?<=[\dA-Za-z)])([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda match: f"^{match[1].translate(_RAISED)}", text)
    text = re.sub(r"[−–]\s*(?=[\d.$€£¥])|(?<=[=:(])\s*-\s+(?=\d)", "-", text)
    text = _TEN_TO.sub(r"1e\1", _TIMES_TEN.sub(r"e\1", text))
    text = spoken_as_digits(without_markup(text))
    text = _LIST.sub(lambda match: match[0].replace(",", ", "), text)
    return _NO_NUMBER.sub(lambda match: " " * len(match[0]), text)


def _numbers(plain: str) -> Iterator[_Found]:
    """All numbers: fractions, then what is left. Digits inside a word count where there are no others."""
    left, any_found = plain, False
    for match in _FRACTION.finditer(plain):
        if bottom := int(match["bottom"]):
            value = Decimal(match["whole"] or 0) + Decimal(match["top"]) / bottom
            any_found = True
            yield _Found(value.copy_negate() if _negative(match, plain) else value, match.start(), match.end())
            left = left[: match.start()] + " " * len(match[0]) + left[match.end() :]
    inside = []
    for match in _NUMBER.finditer(left):
        if not any(char.isdigit() for char in match["digits"]):
            continue
        stated = _value(match)
        if stated is None:
            continue
        one = _Found(stated.copy_negate() if _negative(match, left) else stated, match.start(), match.end())
        before = left[match.start() - 1] if match.start() and not match["sign"] else " "
        if before.isalpha() or before == "_":
            inside.append(one)  # "cm2", "H2O"
        else:
            any_found = True
            yield one
    if not any_found:
        yield from inside


def _negative(match: re.Match[str], text: str) -> bool:
    """A hyphen behind a letter or digit is a dash ("3-5", "route-7"), not a sign."""
    return match["sign"] == "-" and not (match.start() and text[match.start() - 1].isalnum())


def _value(match: re.Match[str]) -> Decimal | None:
    digits = re.sub(r"[\s'’]", "", match["digits"])
    digits, mark, exponent = re.split(r"([eE]|$)", digits, maxsplit=1)[:3]
    if re.fullmatch(_EUROPEAN, digits):
        digits = digits.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d+,\d+", digits) and not re.fullmatch(r"[1-9]\d{0,2},\d{3}", digits):
        digits = digits.replace(",", ".")
    try:
        return Decimal(f"{digits.replace(',', '')}{mark}{exponent}")
    except (InvalidOperation, ValueError):  # an exponent that no number has
        return None
