"""What the page needs to know of answers and do with them; ``benchmark/building/confirming`` has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Confirmable(Protocol):
    """A question with its reference answer, and its ``number``."""

    @property
    def number(self) -> int: ...

    @property
    def id(self) -> str: ...

    @property
    def picture(self) -> Path | None: ...

    @property
    def question(self) -> str: ...

    @property
    def answer(self) -> str: ...

    @property
    def confirmed(self) -> bool: ...

    @property
    def drafted_by(self) -> str: ...

    @property
    def blind(self) -> str: ...

    @property
    def pictures(self) -> Sequence[Path]: ...

    @property
    def scoring(self) -> Sequence[str]: ...


class Desk(Protocol):
    """The answers. ``confirm`` has an answer on the disk when it returns."""

    @property
    def all(self) -> Sequence[Confirmable]: ...

    @property
    def left_out(self) -> Sequence[str]: ...

    def __getitem__(self, number: int) -> Confirmable: ...

    def confirm(self, number: int, answer: str) -> Confirmable: ...
