"""Whether an answer is the reference answer, as far as that can be told without a judge."""

from __future__ import annotations

from ..accuracy.metrics import score
from ..data.questions import Question
from ..reading.words import normalise

LONG_AGREES = 0.75
"""F1 of words from which two answers of several words say the same."""


def is_right(question: Question, answer: str) -> bool:
    """By the question's own metric; answers in free form as :func:`agree` says."""
    found = score(question, answer)
    return agree(answer, question.answers[0]) if found is None else found >= 1.0


def agree(answer: str, reference: str) -> bool:
    """Whether two answers in free form say the same, as far as their words tell.

    A reference of up to three words stands in the answer as it is; of longer ones the F1 of the words is at least
    :data:`LONG_AGREES`.
    """
    given, wanted = normalise(answer).split(), normalise(reference).split()
    if len(wanted) <= 3:
        return any(given[begin : begin + len(wanted)] == wanted for begin in range(len(given) - len(wanted) + 1))
    shared = sum(min(given.count(word), wanted.count(word)) for word in set(wanted))
    return 2 * shared >= LONG_AGREES * (len(given) + len(wanted))
