"""Data sets by name: a folder in LLaVA's format, or the held-out demo set."""

from __future__ import annotations

from pathlib import Path

from .folder_questions import demo_questions, folder_questions, spread
from .questions import Question


def load_questions(data: str, *, limit: int = 0) -> list[Question]:
    """The questions of ``data``, "demo" or a folder; ``limit`` takes that many, spread over types.

    Raises :class:`OptionError`.
    """
    return spread(demo_questions() if data == "demo" else folder_questions(Path(data)), limit)
