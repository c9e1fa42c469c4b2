"""Question sets that come with the package: the demo's held-out questions, and the public easy-VQA."""

from __future__ import annotations

import importlib.resources
import json
from collections import Counter
from pathlib import Path
from typing import Any

from ...runtime.errors import OptionError, needing_extra

MAX_TOKENS = 80
"""Answers of the demo set are a word or two, descriptions a few sentences."""


EASY_VQA = "easy-vqa"


def heldout() -> Path:
    """The folder of the held-out set that ships in the package."""
    return Path(__file__).parents[1] / "demo_heldout"


def read_questions(folder: Path, limit: int = 0) -> list[dict[str, Any]]:
    """Records of ``questions.json`` (LLaVA format with ``type``), at most ``limit`` a type."""
    try:
        records: list[dict[str, Any]] = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(
            expected=f"questions.json in {folder}", got=str(error), fix="install the package again"
        ) from error
    taken: Counter[str] = Counter()
    kept = []
    for record in records:
        taken[record["type"]] += 1
        if not limit or taken[record["type"]] <= limit:
            kept.append(record)
    return kept


def easy_vqa_questions(limit: int = 0) -> tuple[Path, list[dict[str, Any]]]:
    """Folder and records of the public easy-VQA test set (Zhou 2019, PyPI ``easy-vqa``), at most ``limit``.

    Raises :class:`MissingExtraError` where the package that carries the set is not installed.
    """
    with needing_extra("benchmark"):
        folder = Path(str(importlib.resources.files("easy_vqa"))) / "data" / "test"
    questions = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    records = [
        {
            "image": f"images/{picture}.png",
            "type": EASY_VQA,
            "conversations": [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}],
        }
        for question, answer, picture in questions
    ]
    return folder, records[: limit or len(records)]
