"""Checkpoints that several tests read; a test that changes one makes its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.checkpoints import make_checkpoint

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def shared_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """Give a checkpoint by family and layout, made once a session. Read only."""
    made: dict[tuple[str, str], Path] = {}

    def get(family: str = "llama3", layout: str = "transformers") -> Path:
        key = (family, layout)
        if key not in made:
            made[key] = make_checkpoint(tmp_path_factory.mktemp("checkpoint") / f"{family}-{layout}", family, layout)
        return made[key]

    return get
