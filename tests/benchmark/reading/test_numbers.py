"""Numbers in the forms that models give, worked out by hand and against spellings made here."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llava_edge.benchmark.accuracy.metrics import number
from llava_edge.benchmark.reading.numbers import read_number

NUMBERS = (
    ("12,50", "12.5"),
    ("1 234", "1234"),
    ("1\xa0234", "1234"),
    ("1\u2009234", "1234"),
    ("1\u202f234,5", "1234.5"),
    ("1,234", "1234"),
    ("1.234,5", "1234.5"),
    ("1,234.5", "1234.5"),
    ("1.234.567", "1234567"),
    ("1,234,567", "1234567"),
    ("12,34,567", "1234567"),
    ("1'234", "1234"),
    ("1'234.50", "1234.5"),
    ("0,125", "0.125"),
    ("0,5", "0.5"),
    ("3,5", "3.5"),
    ("1.234", "1.234"),
    ("12,345", "12345"),
    ("1234,5", "1234.5"),
    ("1234,567", "1234.567"),
    ("3 1/2", "3.5"),
    ("½", "0.5"),
    ("3½", "3.5"),
    ("3 ½", "3.5"),
    ("-3 1/2", "-3.5"),
    ("1/2", "0.5"),
    ("3/4", "0.75"),
    ("1⁄2", "0.5"),
    ("¾ cup", "0.75"),
    ("2 3/4 cups", "2.75"),
    ("1 / 0", "0"),
    ("thirty", "30"),
    ("twenty-one", "21"),
    ("twenty one", "21"),
    ("one hundred and five", "105"),
    ("one hundred five", "105"),
    ("a hundred", "100"),
    ("two thousand three hundred", "2300"),
    ("two thousand and twenty-four", "2024"),
    ("nineteen", "19"),
    ("one million", "1000000"),
    ("2.5 million", "2500000"),
    ("3 thousand", "3000"),
    ("minus three", "-3"),
    ("negative 3", "-3"),
    ("two and a half", "2.5"),
    ("a dozen", "12"),
    ("two dozen", "24"),
    ("half", "0.5"),
    ("one half", "0.5"),
    ("three quarters", "0.75"),
    ("a quarter", "0.25"),
    ("Thirty-five people", "35"),
    ("ninety nine", "99"),
    ("Forty", "40"),
    ("five hundred thousand", "500000"),
    ("one thousand two hundred thirty-four", "1234"),
    ("-3", "-3"),
    ("−3", "-3"),
    ("–3", "-3"),
    ("+3", "3"),
    ("1e3", "1000"),
    ("1E3", "1000"),
    ("2.5e-3", "0.0025"),
    ("2.5 x 10^3", "2500"),
    ("2.5 × 10³", "2500"),
    ("2.5 \\times 10^{-3}", "0.0025"),
    ("12%", "12"),
    ("12 %", "12"),
    ("12\\%", "12"),
    ("$5", "5"),
    ("$5.00", "5"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("€ 5,50", "5.5"),
    ("5€", "5"),
    ("\\$5", "5"),
    ("$42$", "42"),
    ("$x = 42$", "42"),
    ("\\boxed{42}", "42"),
    ("\\frac{3}{4}", "0.75"),
    ("$\\frac{3}{4}$", "0.75"),
    ("1{,}234", "1234"),
    ("12.50 dollars for 3 items", "12.5"),
    ("5 apples, 3 of them red", "5"),
    ("7 (3 red and 4 blue)", "7"),
    ("There are 5 apples", "5"),
    ("3 + 4 = 7", "7"),
    ("3 plus 4 is 7", "7"),
    ("3 red and 4 blue, so 7 in total", "7"),
    ("between 3-5", "5"),
    ("3-5", "5"),
    ("3 to 5", "5"),
    ("The answer is 5.", "5"),
    ("The answer is 5, because 3 and 2 are seen.", "5"),
    ("Answer: 5\n\nThere are 3 on the left and 2 on the right.", "5"),
    ("Answer: 12,50", "12.5"),
    ("The total is 12.50 for 3 items.", "12.5"),
    ("3:15", None),
    ("At 3:15 there are 4", "4"),
    ("ratio 3:1", None),
    ("5 cm^2", "5"),
    ("5 cm²", "5"),
    ("25 cm2", "25"),
    ("route-7", "7"),
    ("45%", "45"),
    ("12.", "12"),
    (".5", "0.5"),
    ("-.5", "-0.5"),
    ("2e3", "2000"),
    ("about 1,234.50 metres", "1234.50"),
    ("none", None),
    ("", None),
    ("seventeen", "17"),
    ("There are three.", "3"),
    ("[1, 2, 3]", "3"),
    ("1, 2, 3", "3"),
    ("[1,2]", "2"),
    ("(1,2)", "2"),
    ("In 2020 300 people", "300"),
    ("３５", "35"),
    ("**7**", "7"),
    ("7.0", "7"),
    ("007", "7"),
    ("x=5", "5"),
    ("x = -5", "-5"),
    ("≈ 3.14", "3.14"),
    ("3.14.", "3.14"),
    ("5th", "5"),
    ("5kg", "5"),
    ("5 kg.", "5"),
    ("USD5", "5"),
    ("Rs. 500", "500"),
    ("1,000,000.50", "1000000.50"),
    ("-1,234", "-1234"),
    ("1 000", "1000"),
    ("1 000 000", "1000000"),
    ("99 bottles", "99"),
    ("No. 7", "7"),
    ("#7", "7"),
    ("7!", "7"),
    ("seven.", "7"),
    ('"7"', "7"),
    ("(7)", "7"),
    ("<answer>7</answer>", "7"),
    ("<think>3</think>7", "7"),
    ("1e999999999999999999999", None),
    ("The value of x is 5", "5"),
    ("It costs $1,299.99", "1299.99"),
    ("1.299,99 €", "1299.99"),
    ("1,299.99 USD", "1299.99"),
    ("12/05/2020", None),
    ("2020-05-12", None),
    ("1,2,3", "3"),
    ("1,23", "1.23"),
    ("100,000", "100000"),
    ("1,00", "1"),
    ("0.5%", "0.5"),
    ("one", "1"),
    ("one-third", "0.333"),
    ("two thirds", "0.667"),
    ("zero", "0"),
    ("0", "0"),
    ("hundred", "100"),
    ("3 hundred", "300"),
    ("1 and 1/2", "1.5"),
    ("10^3", "1000"),
    ("- 5 cats", "5"),
    ("2 cats and 3 dogs", "2"),
    ("-5 °C", "-5"),
    ("There is one.", "1"),
    ("25% of 80 is 20", "20"),
    ("It is 7 o'clock", "7"),
    ("No number here", None),
    ("The 3 red balls cost 12,50 €.", "12.50"),
)


@pytest.mark.parametrize(("answer", "value"), NUMBERS)
def test_numbers_are_read(answer: str, value: str | None) -> None:
    got = read_number(answer)
    if value is None or got is None:
        assert got is value
    else:
        assert round(got, 3) == round(Decimal(value), 3)


ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
SMALL = [*ONES.split(), "eighteen", "nineteen"]
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def spelt(value: int, link: str, dash: str) -> str:
    """A whole number in English words, below a billion."""
    for size, name in ((10**6, "million"), (10**3, "thousand"), (100, "hundred")):
        if value >= size:
            rest = f" {link if value % size < 100 else ''}{spelt(value % size, link, dash)}" if value % size else ""
            return f"{spelt(value // size, link, dash)} {name}{rest}"
    if value < 20:
        return SMALL[value]
    return TENS[value // 10] + (dash + SMALL[value % 10] if value % 10 else "")


@given(st.integers(0, 10**9 - 1), st.sampled_from(["and ", ""]), st.sampled_from(["-", " "]), st.booleans())
def test_number_words(value: int, link: str, dash: str, capital: bool) -> None:
    words = spelt(value, link, dash)
    assert read_number(f"There are {words}." if not capital else words.capitalize()) == value


@given(st.integers(-(10**12), 10**12), st.integers(0, 99))
def test_thousands_and_decimals_as_people_separate_them(value: int, cents: int) -> None:
    exact = Decimal(f"{value}.{cents:02}")
    english = f"{value:,}.{cents:02}"
    assert read_number(english) == exact
    assert read_number(f"It costs ${english} today." if value >= 0 else english) == exact
    assert read_number(english.translate(str.maketrans(",.", ".,"))) == exact
    for space in " \u00a0\u2009\u202f":
        assert read_number(english.replace(",", space)) == exact
        assert read_number(english.replace(".", "!").replace(",", space).replace("!", ",")) == exact
    assert read_number(f"{value:,}") == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_python_reads_is_read_so(value: float) -> None:
    """MathVista's evaluation calls float() on a bare answer."""
    assert read_number(repr(value)) == Decimal(repr(value))


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("12,50", "12.5", True),
        ("12.50 dollars for 3 items", "12.50", True),
        ("12.50 dollars for 3 items", "3", False),
        ("thirty", "30", True),
        ("½", "0.5", True),
        ("3 1/2", "3.5", True),
        ("1 234", "1234", True),
        ("9" * 5000, "9" * 5000, True),
        ("1e999999", "3", False),
        ("1e-999999", "0.00", True),
        ("1e99999999999999999999", "3", False),
    ],
)
def test_scores(answer: str, expected: str, right: bool) -> None:
    assert number(answer, [expected]) == float(right)


@pytest.mark.parametrize("text", ["1,", "1 ", "9", "one hundred ", "1/", "[1,", "-", "answer ", "two and a half ", "$"])
def test_no_answer_takes_for_ever(text: str) -> None:
    assert read_number(text * 20000) != 3
