"""Words that are compared: without case, articles, punctuation, and the markup that models write around them."""

from __future__ import annotations

import re
import unicodedata

_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
NUMBER_WORDS = {word: str(value) for value, word in enumerate(_NUMBERS)}
LONGEST = 8000
"""Characters that are looked at: twice what the longest answers of a published set may have."""
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = re.compile(r"(?<!\d)(?!(?<!\S)-\d)[^\w\s]|[^\w\s](?!\d)|_")
_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>|^.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL | re.IGNORECASE)
_SPECIAL = re.compile(r"</?s>|<\|[^|<>]{1,40}\|>")
_ROLE = re.compile(r"^\s*(?:assistant|model|ai|gpt)\s*:\s*", re.IGNORECASE)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_WRAPPED = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|sf|it)|rm|bf|mbox|operatorname)\s*\{([^{}]*)\}")
_MARKS = re.compile(
    r"\*+|`+|(?<!\w)_+|_+(?!\w)|^\s*(?:#+|>)\s*|\\[()\[\],;! ]|\$(?!\d)|(?<=\w)\$|(?<=[\w)])\\(?=\s|$)", re.MULTILINE
)


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


def final_part(answer: str) -> str:
    """``answer`` without its thoughts; its <answer>, or the last \\boxed{} in it, where it has one.

    Of a very long one, its beginning and its end.
    """
    if len(answer) > LONGEST:
        answer = f"{answer[: LONGEST // 4]}\n{answer[-LONGEST * 3 // 4 :]}"
    text = _SPECIAL.sub("", _THOUGHT.sub("", answer))
    if tagged := _TAGGED.findall(text):
        text = tagged[-1]
    boxed = _BOXED.findall(text)
    return boxed[-1] if boxed else _ROLE.sub("", text)


def without_markup(text: str) -> str:
    """``text`` as it is read: no Markdown or LaTeX around words, and compatibility characters as the usual ones."""
    for _ in range(3):  # \\textbf{\\text{B}}
        text = _WRAPPED.sub(r"\1", text)
    plain = unicodedata.normalize("NFKC", _MARKS.sub("", text))
    return re.sub(r"[^\S\n]+", " ", re.sub(r"\s*\n\s*", "\n", plain)).strip()
