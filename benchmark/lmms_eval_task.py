"""What an lmms-eval task over a folder of ``benchmark build`` calls; ``lmms-eval.yaml`` in the folder names these.

Paths are as the folder has them, so lmms-eval runs in it. Answers in free form are shown to no judge there: they are
logged with their references (``--log_samples``), and the mean is over the others.
"""

from __future__ import annotations

from typing import Any

from ..runtime.errors import DataError
from .accuracy.metrics import score
from .data.questions import Question


def confirmed(documents: Any) -> Any:
    """The documents whose answer somebody confirmed. Raises DataError where there is none."""
    kept = documents.filter(lambda document: document["confirmed"] is not False)
    if not len(kept):
        raise DataError(
            expected="an answer that somebody confirmed",
            got=f"none of {len(documents)}",
            fix="confirm them first: llava-edge benchmark confirm FOLDER",
        )
    return kept


def pictures(document: dict[str, Any]) -> list[str]:
    """The document's picture, as a path."""
    return [document["image"]]


def prompt(document: dict[str, Any]) -> str:
    """The question."""
    text: str = document["conversations"][0]["value"]
    return text.replace("<image>", "").strip()


def target(document: dict[str, Any]) -> str:
    """The reference answer."""
    text: str = document["conversations"][1]["value"]
    return text


def results(document: dict[str, Any], answers: list[Any]) -> dict[str, float]:
    """The answer's accuracy by the document's own metric; nothing where only a judge can say."""
    question = Question(
        id=document["id"],
        type=document["type"],
        prompt=prompt(document),
        images=(),
        answers=(target(document), *(document.get("accepted") or ())),
        metric=document["metric"],
        choices=tuple(document.get("choices") or ()),
    )
    found = score(question, str(answers[0]))
    return {} if found is None else {"accuracy": found}
