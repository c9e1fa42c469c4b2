"""Question sets that come with the package: the demo's held-out questions, and the public easy-VQA."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path

from ...runtime.errors import MissingExtraError
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
    try:
        folder = Path(str(importlib.resources.files("easy_vqa"))) / "data" / "test"
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            expected="the easy-VQA test set", got="no package easy_vqa", fix="pip install 'llava-edge[benchmark]'"
        ) from error
    records = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    return [
        Question(
            id=str(index),
            type=EASY_VQA,
            prompt=question,
            images=(folder / "images" / f"{picture}.png",),
            answers=(answer,),
            metric="exact",
        )
        for index, (question, answer, picture) in enumerate(records[: limit or len(records)])
    ]
