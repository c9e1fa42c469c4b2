"""lmms-eval's own readers of multiple-choice answers, loaded from its files without its many imports."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest import mock

from support.choice_answers import ANSWERS, CHOICES

VERSION = "0.7.3"
"""The release that choice_outcomes.json was recorded from."""
GUESS = "?"
Parser = Callable[[str, list[str], dict[str, str]], str]


def load_parsers() -> dict[str, Parser] | None:
    """The readers by the data set they belong to, or None where lmms-eval is not installed."""
    found = importlib.util.find_spec("lmms_eval")
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "tasks" / "_task_utils"
    mmmu, mcq = _load(folder / "mmmu_mcq_utils.py"), _load(folder / "mcq_extract.py")
    return {
        "mmmu": mmmu.parse_mmmu_multi_choice_response,
        "realworldqa": lambda text, letters, _: mcq.extract_mcq_answer(text, letters),
    }


def outcomes(parsers: dict[str, Parser]) -> dict[str, list[str]]:
    """What each reader makes of every answer of the table; :data:`GUESS` where it would draw one."""
    result: dict[str, list[str]] = {}
    for name, parse in parsers.items():
        result[name] = []
        for choices, answer, _ in ANSWERS:
            texts = CHOICES[choices] or ("",) * 4
            letters = [chr(ord("A") + at) for at in range(len(texts))]
            with mock.patch.object(random, "choice", return_value=GUESS):
                result[name].append(parse(answer, letters, dict(zip(letters, texts, strict=True))))
    return result


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"lmms_eval_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
