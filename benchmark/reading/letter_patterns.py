"""How people and models write that they mean an option, as regular expressions over the letters there are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_CUE = (
    r"(?:answer|ans\.?|option|choice|selection|solution|response|letter|conclusion|pick|guess|alternative|"
    r"r[ée]ponse|respuesta|antwort|risposta|resposta|ответ|答案|正解|答え|정답)"
)
_IS = (
    r"(?:(?:is|was|would be|should be|must be|will be|has to be|appears to be|seems to be|looks like|might be|becomes|"
    r"est|es|ist|è|é)(?!\w)|:|=|→|->|–|—|-\s|是|为|為|は|은)"
)
_FILL = (
    r"(?:(?:most|very|likely|probably|definitely|clearly|certainly|obviously|thus|therefore|indeed|simply|the|la|correct|"
    r"right|best|final|one|choice|option|letter|answer|given|labell?ed|marked|by|is|as|opci[óo]n|choix|r[ée]ponse)\b[\s:,]*|:\s*)*"
)
_SURELY = r"(?:(?:the|most|indeed|clearly|definitely|probably|likely|only|very|therefore|thus|also|a|an|your|my)\s+)*"
VERDICT = (
    r"(?:(?:is|was|would be|must be|should be|has to be|seems(?: to be)?|appears(?: to be)?|looks)\s+"
    rf"{_SURELY}(?:correct|right|true|best|answer|accurate|appropriate|valid|choice|one|option|likely)\b"
    r"|(?:best|correctly|accurately)\s+(?:matches|fits|describes|answers|represents|shows)\b"
    r"|(?:matches|fits|describes|answers)\b[^.\n]{0,40}\bbest\b|i (?:guess|think|believe|would say)\b)"
)
_VERB = r"(?:is|are|was|were|would be|seems?|looks?|does|do|can|could|has been|have been|being)"
AGAINST = re.compile(
    r"[^\w\n,;]{0,3}\s*(?:"
    rf"(?:{_VERB}\s+)?(?:also\s+|clearly\s+)?"
    r"(?:wrong|incorrect|false|unlikely|ruled out|out|eliminated|excluded|impossible)\b"
    rf"|{_VERB}\s+(?:not|never|too)\b|(?:{_VERB}|did|ca)n['’]t\b|cannot\b)",
    re.IGNORECASE,
)
"""What follows a letter that is denied."""
DENIED = re.compile(
    r"(?:\bnot|n['’]t|\bnor|\bneither|\bnever|\bthan|\bno|\bwrong|\bincorrect|\bfalse|\bif|\bwhether|\bunless|\bexcept|"
    r"\b(?:rule|ruled|ruling|cross|leave|leaves) out|\bexclud\w*|\beliminat\w*)"
    r"(?:[ \t]+(?:the|an?|correct|right|for|to|be|that|option|choice|answer|is|was|would|go|with|choose|select|pick))*"
    r"[ \t:(]*$",
    re.IGNORECASE,
)
"""What stands in front of one."""
_LED = (
    r"(?:i(?:['’](?:d|ll|m)| would| will| must| should| am)?\s+(?:choose|select|pick|say|go(?:ing)? (?:with|for)|chose|"
    r"picked|selected|opt for|guess|think|believe|vote for|answer)(?:\s+that)?(?:\s+(?:it is|it['’]s|it must be))?"
    r"|(?:it|this|that|which)(?:['’]s| is| must be| should be| would be| has to be| seems to be| will be| means)"
    r"|therefore|thus|hence|so|then|definitely|probably|maybe|perhaps|likely|clearly|obviously|surely|finally|"
    rf"select|choose|pick|(?:correct|right|best|true|only)(?:\s+\w+){{0,2}}\s*{_IS})"
)


@dataclass(frozen=True)
class LetterPatterns:
    """Compiled for the letters of one question; each has the letter in its last group that took part."""

    alone: re.Pattern[str]
    """The whole text is a letter, with brackets, quotes and full stops around it."""
    said: re.Pattern[str]
    """A cue and its copula ("the correct answer is"); what is meant follows."""
    led: re.Pattern[str]
    """Words that lead to a letter ("I choose", "It's", "So,"); it follows."""
    judged: re.Pattern[str]
    """A letter and its verdict ("(B) is right")."""
    here: re.Pattern[str]
    """A letter where one is expected: capital or in brackets."""
    here_small: re.Pattern[str]
    """A small letter there, at the end of its sentence."""
    also: re.Pattern[str]
    """A second letter right behind one: "or B"."""
    set_off: re.Pattern[str]
    """A line that begins with a letter and a mark."""
    ending: re.Pattern[str]
    """The text ends with a letter behind a comma or colon."""
    bracketed: re.Pattern[str]
    named: re.Pattern[str]
    """A letter with its noun ("option B")."""


@lru_cache(maxsize=64)
def letter_patterns(letters: str) -> LetterPatterns:
    """The patterns for letters such as "ABCD"."""
    small = letters.lower()
    bracketed = rf"[(\[{{<]\s*([{letters}{small}])\s*[)\]}}>]"
    quoted = rf"[\"'“‘«]\s*([{letters}])[.)]?\s*[\"'”’»]"
    bare = rf"(?<![A-Za-z0-9_'’])([{letters}])(?![A-Za-z0-9_'’+#&%°]|-\w)"
    letter = rf"(?:{bracketed}|{quoted}|{bare})"
    one = rf"(?:(?:option|choice|answer|letter)\s+)?{letter}"

    def made(pattern: str) -> re.Pattern[str]:
        return re.compile(pattern, re.IGNORECASE)

    def exact(pattern: str) -> re.Pattern[str]:
        """Letters in their own case, words in any."""
        return re.compile(pattern)

    return LetterPatterns(
        alone=exact(
            rf"[\s(\[{{<\"'“‘«.:\-=>→⇒✓✔✅]*(?:(?i:option|choice|letter|answer|ans)\s*[:.]?\s*)?"
            rf"[\s(\[{{<\"'“‘«]*([{letters}{small}])[\s)\]}}>\"'”’».:,;!?✓✔✅\-]*"
        ),
        said=made(
            rf"(?<![\w-]){_CUE}s?[\"'”’]?(?:\s+(?:to|for|of|in|here|that)\b[^.:\n]{{0,60}}?|\s*\([^)\n]{{1,30}}\))?"
            rf"\s*{_IS}[\s:]*(?P<fill>{_FILL})"
        ),
        led=made(rf"(?<![\w'’-]){_LED}(?![\w])[\s,:]*(?P<fill>{_FILL})"),
        judged=exact(rf"{one}(?:\s*[.):,–—-]\s*(?:(?!\b(?:is|was|not)\b)[^.;\n(]){{0,60}}?|\s*)\s*(?i:{VERDICT})"),
        here=exact(letter),
        here_small=exact(rf"([{small}])(?=\s*[.,;:!?)]*\s*(?:$|\n))"),
        also=exact(rf"\s*(?:,\s*(?:(?i:or|and)\s+)?|/|&|(?i:or|and|and/or)\s+)\s*{one}"),
        set_off=exact(
            rf"[\s\-•]*(?:(?i:option|choice|answer)\s+)?"
            rf"(?:{bracketed}|([{letters}])(?=\s*(?:[.):;,]|[–—]|-\s|$)|\s+(?i:because|since|as|is)\b))"
        ),
        ending=exact(rf"(?:[,:>→⇒]|\b(?i:by|with|to))\s*{one}[\s.!)]*$"),
        bracketed=exact(bracketed),
        named=exact(rf"(?i:\b(?:option|choice|answer|letter|alternative))\s+{letter}"),
    )
