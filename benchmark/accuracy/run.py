"""Quantized bundles against their reference on questions about pictures: asked, kept, compared.

One model is in memory at a time: first the reference answers, then every candidate is held against
what is kept of it, whole and, for the attribution, each of its parts alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...runtime.bundle.bundle import Bundle
from ...runtime.callbacks import Progress
from ...runtime.errors import ImageError, OptionError
from ...runtime.model import Model
from ...runtime.options import LoadOptions
from ..data.questions import Question, QuestionList
from .answer_store import CandidateAnswer, CandidateStore, ReferenceStore, picture_digests, question_key
from .attribution import Part, Subject, parts
from .comparison import Comparison, Marking, TextAnswers, compare
from .divergence import answer_as_candidate, answer_as_reference


@dataclass(frozen=True)
class Setting:
    """What is compared on what: bundles opened, parts worked out, questions hashed."""

    reference: Subject
    candidates: tuple[dict[Part, Subject], ...]
    questions: tuple[Question, ...]
    keys: tuple[str, ...]
    folder: Path
    text: tuple[tuple[str, Question], ...] = ()
    """The same questions without their pictures, with their keys, where they are to be asked too."""

    def subjects(self) -> list[Subject]:
        """Every distinct thing to hold against the reference, in the order to ask them."""
        distinct = {subject.key: subject for one in self.candidates for subject in one.values()}
        return list(distinct.values())

    def references(self) -> ReferenceStore:
        """Where the reference's answers are kept."""
        return ReferenceStore(self.folder, self.reference.key)

    def answers_of(self, subject: Subject) -> CandidateStore:
        """Where the answers of ``subject``, held against the reference, are kept."""
        return CandidateStore(self.folder, self.reference.key, subject.key)


def compare_bundles(
    reference: Path,
    candidates: Sequence[Path],
    questions: Sequence[Question],
    *,
    folder: Path,
    attribution: bool = True,
    text: bool = False,
    options: LoadOptions | None = None,
    judge: Marking | None = None,
    picture_tokens: Sequence[int | str] = (),
    on_progress: Progress = lambda done, total: None,
) -> Comparison:
    """Ask what ``folder`` does not hold yet, and compare; with ``text`` also without the pictures.

    Of ``picture_tokens``, as the option has them, each candidate is measured with each; the reference has all.

    Interrupt it as you like: every answer is kept when it is there, and the next run asks for the
    others only. ``on_progress`` hears (answers given, answers that were missing when the run began).
    Raises BundleError, OptionError, ImageError, NativeError, StorageError.
    """
    options = options or LoadOptions()
    setting = prepare(
        reference,
        candidates,
        questions,
        folder=folder,
        attribution=attribution,
        text=text,
        context=options.context,
        picture_tokens=picture_tokens,
    )
    ask(setting, options, on_progress)
    left_out = questions.left_out if isinstance(questions, QuestionList) else ()
    return replace(conclude(setting, judge), left_out=left_out)


def prepare(
    reference: Path,
    candidates: Sequence[Path],
    questions: Sequence[Question],
    *,
    folder: Path,
    attribution: bool = True,
    text: bool = False,
    context: int = 0,
    picture_tokens: Sequence[int | str] = (),
) -> Setting:
    """Open the bundles, without loading any model, and hash the questions.

    ``text`` asks them without pictures too, unless none has any.
    """
    if not questions or not candidates:
        missing = "question" if candidates else "candidate"
        raise OptionError(expected=f"at least one {missing}", got="none", fix=f"give a {missing}")
    opened = Bundle.open(reference)
    split = [parts(opened, Bundle.open(one), kept) for one in candidates for kept in picture_tokens or (None,)]
    if not attribution:
        split = [{"both": one["both"]} for one in split]
    keys = tuple(_key(one, context) for one in questions)
    alone = [replace(one, images=()) for one in questions] if text and any(one.images for one in questions) else []
    without = tuple((_key(one, context), one) for one in alone)
    return Setting(Subject(opened, opened), tuple(split), tuple(questions), keys, folder, without)


def _key(question: Question, context: int) -> str:
    try:
        return question_key(question, context=context)
    except OSError as error:
        raise ImageError(
            expected=f"the pictures of question {question.id}", got=str(error), fix="check the data set"
        ) from error


def ask(setting: Setting, options: LoadOptions, on_progress: Progress) -> None:
    """Get every answer that is not kept yet, one model after another."""
    seen = dict(zip(setting.keys, setting.questions, strict=True))
    asked = seen | dict(setting.text)
    whole = {each["both"].key for each in setting.candidates}  # the parts alone are measured with pictures only
    references = setting.references()
    missing = [key for key in asked if references.read(key) is None]
    work = [
        (one, [key for key in (asked if one.key in whole else seen) if setting.answers_of(one).read(key) is None])
        for one in setting.subjects()
    ]
    total = len(missing) + sum(len(keys) for _, keys in work)
    count = itertools.count(1)
    if missing:
        with setting.reference.load(options) as model:
            for key in missing:
                references.write(key, answer_as_reference(model, asked[key]))
                on_progress(next(count), total)
    for subject, keys in work:
        if keys:
            with subject.load(options) as model:
                for key in keys:
                    _answer(setting, subject, model, key, asked[key])
                    on_progress(next(count), total)


def _answer(setting: Setting, subject: Subject, model: Model, key: str, question: Question) -> None:
    known = setting.references().read(key)
    assert known is not None
    setting.answers_of(subject).write(key, answer_as_candidate(model, question, known, subject.picture_tokens))


def conclude(setting: Setting, judge: Marking | None = None) -> Comparison:
    """Score and compare the answers that are kept."""
    answers = {one.key: _kept(setting, one, setting.keys) for one in setting.subjects()}
    return compare(
        setting.reference.llm,
        _texts(setting, setting.keys),
        [({part: answers[one.key] for part, one in each.items()}, each["both"].llm) for each in setting.candidates],
        questions=setting.questions,
        pictures=[
            "".join(picture_digests(one)) or key for one, key in zip(setting.questions, setting.keys, strict=True)
        ],
        judge=judge,
        text=_text_answers(setting) if setting.text else None,
        kept=[each["both"].picture_tokens for each in setting.candidates],
    )


def _text_answers(setting: Setting) -> TextAnswers:
    keys = [key for key, _ in setting.text]
    answers = [_kept(setting, each["both"], keys) for each in setting.candidates]
    return TextAnswers([question for _, question in setting.text], keys, _texts(setting, keys), answers)


def _texts(setting: Setting, keys: Sequence[str]) -> list[str]:
    references = setting.references()
    return [answer.text for key in keys if (answer := references.read(key)) is not None]


def _kept(setting: Setting, subject: Subject, keys: Sequence[str]) -> list[CandidateAnswer]:
    store = setting.answers_of(subject)
    return [answer for key in keys if (answer := store.read(key)) is not None]
