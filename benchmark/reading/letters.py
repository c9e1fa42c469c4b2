"""Which option an answer in free words chooses."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence

from .letter_patterns import AGAINST, DENIED, letter_patterns
from .words import final_part, normalise, without_markup

_OPEN = "open"
"""Said instead of a letter where a statement leaves two open."""
_SENTENCE = re.compile(r"(.*?)(?:[.;!?](?=\s|$)|\n|$)", re.DOTALL)
_NEGATED = re.compile(
    r" (?:not|t|never|no|nor|than|without)"
    r"(?: (?:is|be|of|in|at|on|to|from|with|shows?|depicts?|contains?|has|have|looks?|like))*$"
)
"""What stands in front of a choice that is denied, in normalised words ("isn t")."""
_ARTICLE = re.compile(r"\s+(?!(?:because|as|since|which|that|is|for|due|based|from|with|and|or|in|on|by|given)\b)[a-z]")
"""What stands behind an "A" that is a word and no letter."""


def chosen_letter(answer: str, choices: Sequence[str]) -> str | None:
    """The letter that ``answer`` chooses among ``choices`` (A first), or None.

    In this order: a letter alone; the text of one choice; what the last statement says ("the answer is B", "B is
    right", "I choose B"); a last or first line that is a letter; a letter set off at the start ("B.", "(B) blue"); the
    only letter in brackets, then the only "option B"; the only choice whose text occurs. Letters that are denied ("not
    A", "A is wrong") do not count. An answer that says none of these, or leaves two open ("A or B"), is wrong: no
    guess is drawn for it, as MMMU's evaluation does.
    """
    return _Reader(choices).letter(without_markup(final_part(answer)))


class _Reader:
    """What letters and texts mean for one list of choices."""

    def __init__(self, choices: Sequence[str]) -> None:
        self._letters = string.ascii_uppercase[: len(choices)] if choices else string.ascii_uppercase
        self._texts = [normalise(without_markup(one)) for one in choices]
        self._patterns = letter_patterns(self._letters)

    def letter(self, text: str) -> str | None:
        if alone := self._patterns.alone.fullmatch(text):
            return str(alone[1]).upper()
        if whole := self._choice_that_is(text):
            return whole
        if stated := self._last_statement(text):
            return None if stated == _OPEN else stated
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        for line in (lines[-1], lines[0]) if len(lines) > 1 else ():
            if alone := self._patterns.alone.fullmatch(line):
                return str(alone[1]).upper()
        found = (
            self._set_off(lines)
            or self._ending(text)
            or self._only(self._patterns.bracketed, text)
            or self._only(self._patterns.named, text)
            or self._only_choice_in(text)
        )
        return None if found == _OPEN else found

    def _choice_that_is(self, text: str) -> str | None:
        """The only choice whose text is ``text``, spaces apart."""
        for squeeze in (" ", ""):
            given = normalise(text).replace(" ", squeeze)
            same = [
                letter
                for letter, one in zip(self._letters, self._texts, strict=False)
                if one.replace(" ", squeeze) == given
            ]
            if len(same) == 1:
                return same[0]
        return None

    def _only_choice_in(self, text: str) -> str | None:
        """The only choice whose text occurs and is not denied; a choice inside a longer one is that one."""
        left, found = f" {normalise(text)} ", set()
        by_length = sorted(zip(self._letters, self._texts, strict=False), key=lambda pair: -len(pair[1]))
        for letter, one in by_length:
            at = left.find(f" {one} ") if one else -1
            while at >= 0:
                if not _NEGATED.search(left[:at]):
                    found.add(letter)
                left = f"{left[: at + 1]}\0{left[at + 1 + len(one) :]}"
                at = left.find(f" {one} ")
        if len(found) != 1 and "=" in text:
            return self._choice_that_is(text.rpartition("=")[2])
        return found.pop() if len(found) == 1 else None

    def _last_statement(self, text: str) -> str | None:
        """What the last of the statements says: a letter, or that it is open."""
        found = [*self._said(text), *self._judged(text)]
        return max(found)[1] if found else None

    def _said(self, text: str) -> Iterator[tuple[int, str]]:
        """Statements that lead to what is meant: where each ends, and what it says."""
        for pattern, texts_too in ((self._patterns.said, True), (self._patterns.led, False)):
            for cue in pattern.finditer(text):
                if DENIED.search(text[: cue.start()][-60:]) or AGAINST.match(text, cue.end()):
                    continue
                meant = self._meant(text, cue, texts_too=texts_too)
                if meant is not None:
                    yield meant

    def _meant(self, text: str, cue: re.Match[str], *, texts_too: bool) -> tuple[int, str] | None:
        """The letter behind a cue, else the choice; words such as "the right" may belong to its text."""
        at = cue.end()
        here = self._patterns.here.match(text, at)
        word = here is not None and here[0] == "A" and _ARTICLE.match(text, here.end()) is not None
        if here is not None and not word:
            if AGAINST.match(text, here.end()):
                return None
            return here.end(), self._alone_or_open(text, here)
        if texts_too:
            if chosen := self._choice_behind(text, cue.start("fill")):
                return at, chosen
            if small := self._patterns.here_small.match(text, at):
                return small.end(), small[1].upper()
        return (here.end(), "A") if here is not None and not self._texts else None

    def _choice_behind(self, text: str, at: int) -> str | None:
        line = text[at:].partition("\n")[0]
        rest = _SENTENCE.match(text, at)
        sentence = rest[1] if rest else ""
        return self._choice_that_is(line) or self._choice_that_is(sentence) or self._only_choice_in(sentence)

    def _judged(self, text: str) -> Iterator[tuple[int, str]]:
        for match in self._patterns.judged.finditer(text):
            before = text[: match.start()]
            several = re.search(rf"[{self._letters}]\)?\s*(?:,|/|&|or|and)\s*(?:(?:option|choice)\s+)?$", before)
            if not DENIED.search(before[-60:]):
                yield match.end(), _OPEN if several else _letter_of(match)

    def _alone_or_open(self, text: str, found: re.Match[str]) -> str:
        """The letter, or that it is open because another one follows without a verdict of its own."""
        also = self._patterns.also.match(text, found.end())
        if also and _letter_of(also) != _letter_of(found):
            verdict = re.match(r"\s+(?:is|are|was|does|do|has|would|can|shows|being)\b", text[also.end() :])
            if not verdict and not AGAINST.match(text, also.end()):
                return _OPEN
        return _letter_of(found)

    def _set_off(self, lines: Sequence[str]) -> str | None:
        """The letter that the answer begins with; a list of the choices, repeated, begins with none."""
        starts = [(line, match) for line in lines if (match := self._patterns.set_off.match(line))]
        if len({_letter_of(match) for _, match in starts}) > 1 and len(starts) > 1:
            if len(kept := [pair for pair in starts if self._is_kept(*pair)]) == 1:
                return _letter_of(kept[0][1])
            echoed = [pair for pair in starts if self._is_choice(pair[0][pair[1].end() :], _letter_of(pair[1]))]
            if len(echoed) != 1:
                return None
            starts = []
        if lines and starts and starts[0][0] is lines[0]:
            line, match = starts[0]
            return None if AGAINST.match(line, match.end()) else self._alone_or_open(line, match)
        first = self._patterns.here.match(lines[0]) if lines else None
        if first is not None and self._is_choice(lines[0][first.end() :], _letter_of(first)):
            return _letter_of(first)
        return None

    def _is_kept(self, line: str, start: re.Match[str]) -> bool:
        """Whether a line about one option says that it is right."""
        at = self._letters.index(_letter_of(start))
        rest = f" {normalise(line[start.end() :])} ".replace(
            f" {self._texts[at]} " if at < len(self._texts) else "", " "
        )
        right = re.search(r"[✓✔✅]| (?:correct|right|true|yes) ", rest)
        return bool(right) and not re.search(r" (?:not|t|never|less|incorrect|wrong|false|no) |[✗✘❌]", rest)

    def _ending(self, text: str) -> str | None:
        match = self._patterns.ending.search(text)
        before = text[: match.start()] if match else ""
        if match is None or DENIED.search(before[-60:]) or re.search(rf"(?<!\w)[{self._letters}]\W*$", before):
            return None
        return _letter_of(match)

    def _is_choice(self, text: str, letter: str) -> bool:
        at = self._letters.index(letter)
        return at < len(self._texts) and normalise(text) == self._texts[at]

    def _only(self, pattern: re.Pattern[str], text: str) -> str | None:
        """The only letter that ``pattern`` finds and nothing denies."""
        found = {
            _letter_of(match)
            for match in pattern.finditer(text)
            if not DENIED.search(text[: match.start()][-60:]) and not AGAINST.match(text, match.end())
        }
        return found.pop() if len(found) == 1 else None


def _letter_of(match: re.Match[str]) -> str:
    """The letter of a match: the last group that took part."""
    return str(match[match.lastindex or 0]).upper()
