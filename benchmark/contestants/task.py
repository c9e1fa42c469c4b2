"""What every contestant of the speed benchmark is asked, and what it says back: plain values."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

QUESTION = "Describe the picture in detail."
FOLLOW_UP = "And what else is there?"


@dataclass(frozen=True)
class Task:
    """One picture, a question about it and a follow-up in the same conversation, both answered greedily.

    ``tokens`` is the most an answer may have, ``threads`` what each library may use. ``bundle`` is ours;
    the peers take the same weights from ``checkpoint`` (transformers), ``projector`` (mtmd, with the
    bundle's own GGUF) and ``openvino`` (the folder that ``openvino_setup`` made). Empty means none.
    """

    image: str
    bundle: str
    threads: int
    tokens: int = 32
    question: str = QUESTION
    follow_up: str = FOLLOW_UP
    checkpoint: str = ""
    projector: str = ""
    openvino: str = ""

    def write(self, path: Path) -> None:
        """Write the task as JSON, for a child process."""
        path.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")

    @staticmethod
    def read(path: Path) -> Task:
        """Read what :meth:`write` wrote."""
        return Task(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Figures:
    """One run of one contestant, in seconds unless said otherwise; None where it can't be told apart.

    ``first_token`` is the wait from the question to the first token, loading not counted;
    ``encode`` and ``prefill`` are its parts. ``decode`` is tokens a second after the first token
    (None for an answer of one). ``second`` is the follow-up's wait for its first token.
    ``prompt_tokens`` and ``image_tokens`` are positions. ``settings`` says how it was set up.
    ``cpu`` and ``peak_bytes`` (resident, whole process) are filled in by the parent.
    """

    load: float
    first_token: float
    second: float
    encode: float | None = None
    prefill: float | None = None
    decode: float | None = None
    prompt_tokens: int | None = None
    image_tokens: int | None = None
    tokens: int | None = None
    settings: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    cpu: float = 0.0
    peak_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dataclasses.asdict(self)
