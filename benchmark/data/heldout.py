"""Question sets that come with the package: the demo's held-out questions, and the public easy-VQA."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path

from ...runtime.errors import needing_extra
from .questions import Question

MAX_TOKENS = 80
"""Answers of the demo set are a word or two, descriptions a few sentences."""
EASY_VQA = "easy-vqa"


def heldout() -> Path:
    """The folder of the held-out set that ships in the package."""
    return Path(__file__).parents[1] / "demo_heldout"


def easy_vqa_questions(limit: int = 0) -> list[Question]:
    """The public easy-VQA test set (Zhou 2019, PyPI ``easy-vqa``), at most ``limit`` questions.

    Raises :class:`MissingExtraError` where the package that carries the set is not installed.
    """
    with needing_extra("benchmark"):
        folder = Path(str(importlib.resources.files("easy_vqa"))) / "data" / "test"
    questions = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    return [
        Question(
            str(index), EASY_VQA, asked, (folder / "images" / f"{picture}.png",), (answer,), "exact",
            max_tokens=MAX_TOKENS,
        )
        for index, (asked, answer, picture) in enumerate(questions[: limit or None])
    ]  # fmt: skip
