"""From answers to numbers, each with its interval: divergence and accuracy, whole, by type and by part."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.named import names_of
from ...runtime.errors import OptionError
from ..data.questions import Question
from .answer_store import CandidateAnswer
from .attribution import Part
from .bootstrap import LEVEL, RESAMPLES, SEED, Bootstrap, Estimate
from .metrics import score

Marking = Callable[[Question, str], float | None]
"""Gives a free-form answer its share, from 0 to 1, or None where it gives no marks."""
Scores = Sequence[float | None]


@dataclass(frozen=True)
class Divergence:
    """Next-token distributions, teacher-forced on the reference's answers: KL in nats a token.

    ``kl_error`` bounds what rounding on disk did to ``kl_mean``; ``top1`` is the share of tokens on
    which the likeliest one is the reference's, ``same`` that of answers without any other, and
    ``first_divergent`` the median number, from 1, of the first other token where there is one.
    """

    positions: int
    kl_mean: Estimate
    kl_median: Estimate
    kl_p99: Estimate
    kl_error: float
    top1: Estimate
    same: Estimate
    first_divergent: float | None


@dataclass(frozen=True)
class Accuracy:
    """Shares from 0 to 1; ``difference`` is candidate less reference, paired by question."""

    scored: int
    reference: Estimate
    candidate: Estimate
    difference: Estimate


@dataclass(frozen=True)
class Measured:
    """One set of questions. Divergence is None where none fits the context, accuracy where none is scored."""

    questions: int
    divergence: Divergence | None
    accuracy: Accuracy | None


@dataclass(frozen=True)
class Side:
    """A bundle in the comparison: ``bytes`` of its folder, its recipes, and what it had of each picture (None: all)."""

    name: str
    bytes: int
    vision: str
    llm: str
    picture_tokens: int | str | None = None


@dataclass(frozen=True)
class Candidate:
    """All that was measured of one candidate. ``parts`` has "vision" and "llm" alone where asked for.

    ``text`` is of the same questions without their pictures, both sides asked so, where that was asked for;
    ``text_difference`` is the mean KL with the pictures less that without.
    """

    side: Side
    overall: Measured
    types: dict[str, Measured]
    parts: dict[str, Measured]
    text: Measured | None = None
    text_difference: Estimate | None = None


@dataclass(frozen=True)
class Comparison:
    """The result. ``refused`` questions did not fit the context, or had a picture that can't be shown: wrong for all.

    ``unconfirmed`` questions have an answer that nobody vouches for, and are not scored.
    ``left_out`` has a line for each record of the data set that could not be a question.
    """

    reference: Side
    accuracy: Estimate | None
    candidates: tuple[Candidate, ...]
    questions: int
    pictures: int
    scored: int
    refused: int
    unconfirmed: int = 0
    left_out: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values: what ``benchmark accuracy --json`` prints."""
        return {
            "reference": dataclasses.asdict(self.reference) | _flat("accuracy", "accuracy_interval", self.accuracy),
            "candidates": [_candidate_dict(one) for one in self.candidates],
            "questions": self.questions,
            "pictures": self.pictures,
            "scored": self.scored,
            "refused": self.refused,
            "unconfirmed": self.unconfirmed,
            "left_out": list(self.left_out),
            "bootstrap": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, "drawn": "pictures"},
        }


@dataclass(frozen=True)
class TextAnswers:
    """The questions asked without their pictures: the reference's texts, and a list of answers a candidate.

    ``prompts`` names what was asked, so that a question asked about many pictures is one measurement, not many.
    """

    questions: Sequence[Question]
    prompts: Sequence[str]
    texts: Sequence[str]
    candidates: Sequence[list[CandidateAnswer]]


@dataclass(frozen=True)
class _Asked:
    """Questions with the reference's scores, and what is drawn again for intervals: pictures, or prompts."""

    questions: Sequence[Question]
    pictures: Sequence[str]
    reference: Scores


def compare(
    reference: Bundle,
    texts: Sequence[str],
    candidates: Sequence[tuple[dict[Part, list[CandidateAnswer]], Bundle]],
    *,
    questions: Sequence[Question],
    pictures: Sequence[str],
    judge: Marking | None = None,
    text: TextAnswers | None = None,
    kept: Sequence[int | str | None] = (),
) -> Comparison:
    """Compare answers given in the order of ``questions``; ``pictures`` names what each one is about.

    ``text`` has the answers to the same questions, in the same order, without the pictures, ``kept`` one entry a
    candidate: the ``picture_tokens`` that it had.

    Raises :class:`OptionError` where no question fits the context.
    """
    asked = _Asked(questions, pictures, _scores(questions, texts, judge))
    names = _names([reference, *(bundle for _, bundle in candidates)])
    refused = sum(bool(one.refused) for one in candidates[0][0]["both"])
    if refused == len(questions):
        said = candidates[0][0]["both"][0].refused
        raise OptionError(expected="a question that fits the context", got=said, fix="choose a larger context")
    own = [(one, picture) for one, picture in zip(asked.reference, pictures, strict=True) if one is not None]
    found = [
        _candidate(asked, answers, _side(bundle, name, fewer), judge)
        for (answers, bundle), name, fewer in zip(candidates, names[1:], kept or [None] * len(candidates), strict=True)
    ]
    if text is not None:
        both = [answers["both"] for answers, _ in candidates]
        found = [_with_text(*each, asked, text) for each in zip(found, both, text.candidates, strict=True)]
    return Comparison(
        reference=_side(reference, names[0]),
        accuracy=Bootstrap([at for _, at in own]).share([one for one, _ in own]) if own else None,
        candidates=tuple(found),
        questions=len(questions),
        pictures=len({about for about, one in zip(pictures, questions, strict=True) if one.images}),
        scored=len(own),
        refused=refused,
        unconfirmed=sum(not one.confirmed for one in questions),
    )


def _scores(questions: Sequence[Question], texts: Sequence[str], judge: Marking | None) -> Scores:
    def one(question: Question, text: str) -> float | None:
        if not question.confirmed:
            return None
        return judge(question, text) if question.metric == "judged" and judge is not None else score(question, text)

    return [one(question, text) for question, text in zip(questions, texts, strict=True)]


def _candidate(
    asked: _Asked, answers: dict[Part, list[CandidateAnswer]], side: Side, judge: Marking | None
) -> Candidate:
    scores = {
        part: _scores(asked.questions, [one.text for one in each], judge if part == "both" else None)
        for part, each in answers.items()
    }
    everything = range(len(asked.questions))
    types: dict[str, list[int]] = {}
    for index, question in enumerate(asked.questions):
        types.setdefault(question.type, []).append(index)
    both = answers["both"], scores["both"]
    return Candidate(
        side,
        overall=_measured(asked, *both, everything),
        types={name: _measured(asked, *both, chosen) for name, chosen in sorted(types.items())},
        parts={part: _measured(asked, answers[part], scores[part], everything) for part in answers if part != "both"},
    )


def _with_text(
    found: Candidate, answers: list[CandidateAnswer], blind: list[CandidateAnswer], asked: _Asked, text: TextAnswers
) -> Candidate:
    """``found`` with what the questions without their pictures say: no judge, who would have to see what is missing."""
    without = _Asked(text.questions, text.prompts, _scores(text.questions, text.texts, None))
    scores = _scores(text.questions, [one.text for one in blind], None)
    measured = _measured(without, blind, scores, range(len(text.questions)))
    difference = None
    if found.overall.divergence and measured.divergence:
        drawn = [_drawn(asked, answers, SEED), _drawn(without, blind, SEED + 1)]
        difference = drawn[0][0].less(drawn[0][1], *drawn[1])
    return dataclasses.replace(found, text=measured, text_difference=difference)


def _drawn(
    asked: _Asked, answers: Sequence[CandidateAnswer], seed: int
) -> tuple[Bootstrap, tuple[list[float], list[float]]]:
    """Draws of what ``answers`` are about, and each one's sum of KL and its tokens."""
    chosen = [index for index, one in enumerate(answers) if one.kl]
    values = [answers[index].kl for index in chosen]
    bootstrap = Bootstrap([asked.pictures[index] for index in chosen], seed=seed)
    return bootstrap, ([math.fsum(one) for one in values], [float(len(one)) for one in values])


def _measured(asked: _Asked, answers: Sequence[CandidateAnswer], scores: Scores, chosen: Sequence[int]) -> Measured:
    answered = [index for index in chosen if answers[index].kl]
    scored = [index for index in chosen if scores[index] is not None and asked.reference[index] is not None]
    return Measured(
        len(chosen),
        _divergence(asked, [answers[index] for index in answered], answered) if answered else None,
        _accuracy(asked, scores, scored) if scored else None,
    )


def _divergence(asked: _Asked, answers: Sequence[CandidateAnswer], chosen: Sequence[int]) -> Divergence:
    bootstrap = Bootstrap([asked.pictures[index] for index in chosen])
    sizes = [float(len(one.kl)) for one in answers]
    values = [one.kl for one in answers]
    partings = [one.first_divergent + 1 for one in answers if one.first_divergent is not None]
    return Divergence(
        positions=int(sum(sizes)),
        kl_mean=bootstrap.ratio([math.fsum(one.kl) for one in answers], sizes),
        kl_median=bootstrap.quantile(values, 0.5),
        kl_p99=bootstrap.quantile(values, 0.99),
        kl_error=math.fsum(math.fsum(one.kl_error) for one in answers) / sum(sizes),
        top1=bootstrap.share([float(sum(one.top1)) for one in answers], sizes),
        same=bootstrap.share([float(one.first_divergent is None) for one in answers]),
        first_divergent=statistics.median(partings) if partings else None,
    )


def _accuracy(asked: _Asked, scores: Scores, chosen: Sequence[int]) -> Accuracy:
    bootstrap = Bootstrap([asked.pictures[index] for index in chosen])
    ours = [float(scores[index] or 0.0) for index in chosen]
    theirs = [float(asked.reference[index] or 0.0) for index in chosen]
    return Accuracy(len(chosen), bootstrap.share(theirs), bootstrap.share(ours), bootstrap.difference(ours, theirs))


def _names(bundles: Sequence[Bundle]) -> list[str]:
    """Names in the store or folders', or whole paths where two are equal."""
    short = {one.path: names_of(one.path)[0] for one in bundles}
    called = list(short.values())
    return [str(one.path) if called.count(short[one.path]) > 1 else short[one.path] for one in bundles]


def _side(bundle: Bundle, name: str, kept: int | str | None = None) -> Side:
    manifest = bundle.manifest
    if kept is not None:
        name += f" with {kept} of picture tokens"
    size = sum(entry.size for entry in manifest.files)
    return Side(name, size, manifest.vision.recipe, manifest.llm.recipe, kept)


def _candidate_dict(candidate: Candidate) -> dict[str, Any]:
    return (
        dataclasses.asdict(candidate.side)
        | _measured_dict(candidate.overall)
        | {
            "types": [{"type": name} | _measured_dict(one) for name, one in candidate.types.items()],
            "attribution": [{"part": name} | _measured_dict(one) for name, one in candidate.parts.items()],
            "text": _measured_dict(candidate.text) if candidate.text else None,
        }
        | _flat("text_difference", "text_difference_interval", candidate.text_difference)
    )


def _measured_dict(measured: Measured) -> dict[str, Any]:
    """Flat keys: an estimate is its value and, beside it, its interval [low, high]."""
    flat: dict[str, Any] = {"questions": measured.questions, "positions": 0}
    divergence, accuracy = measured.divergence, measured.accuracy
    for name in ("kl_mean", "kl_median", "kl_p99", "top1", "same"):
        flat |= _flat(name, f"{name}_interval", getattr(divergence, name, None))
    flat["kl_error"] = divergence.kl_error if divergence else None
    flat["first_divergent"] = divergence.first_divergent if divergence else None
    flat["positions"] = divergence.positions if divergence else 0
    flat["scored"] = accuracy.scored if accuracy else 0
    flat |= _flat("accuracy", "accuracy_interval", accuracy.candidate if accuracy else None)
    flat |= _flat("reference_accuracy", "reference_accuracy_interval", accuracy.reference if accuracy else None)
    return flat | _flat("difference", "interval", accuracy.difference if accuracy else None)


def _flat(name: str, interval: str, estimate: Estimate | None) -> dict[str, Any]:
    if estimate is None:
        return {name: None, interval: None}
    return {name: estimate.value, interval: [estimate.low, estimate.high] if estimate.known else None}
