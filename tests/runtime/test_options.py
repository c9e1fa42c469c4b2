"""Options are declared once: what type checkers, Python and the command line know of them is the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from llava_edge.runtime.options import GenerationOptions, LoadChoices, LoadOptions, SamplingChoices, declared

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("kind", "keywords"), [(LoadOptions, LoadChoices), (GenerationOptions, SamplingChoices)])
def test_keywords_are_the_fields(kind: type[Any], keywords: type[Any]) -> None:
    assert list(get_type_hints(kind).items()) == list(get_type_hints(keywords).items())
    assert not keywords.__required_keys__


@pytest.mark.parametrize("kind", [LoadOptions, GenerationOptions])
def test_every_option_says_what_it_is(kind: type[Any]) -> None:
    for name, option in declared(kind).items():
        assert option.help.endswith("."), name
        number = type(getattr(kind, name)) in (int, float)
        assert option.bounds is not None or not number, name


PROGRAM = """
from llava_edge.runtime import Answer, Model, load

def ask(model: Model) -> Answer:
    for piece in model.chat().stream("What?", images=["a.png"], temperature=0.5, stop=("\\n",)):
        print(piece)
    model.chat().generate("What?", images=["a.png"], cancelled=lambda: False, seed=1)
    return model.ask("What?", ["a.png"], max_tokens=3)

load("bundle", threads=2, workers=("10.0.0.2:50052",))
"""
WRONG = [
    'load("bundle", thread=2)',
    'load("bundle", device="gpu")',
    'load().ask("What?", temprature=0.5)',
    'load().ask("What?", stop="text")',
    'load().chat().generate("What?", top_p=None)',
    'load().chat().stream("What?", threads=2)',
]


@pytest.mark.slow
def test_a_type_checker_sees_wrong_keywords(tmp_path: Path) -> None:
    """In a user's own strictly checked program; the lines of the right one are fine."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + "\n".join(WRONG) + "\n", encoding="utf-8")
    (tmp_path / "llava_edge").symlink_to(ROOT)
    options = ("--strict", "--namespace-packages", "--explicit-package-bases", "--follow-imports=silent")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--config-file", str(ROOT / "pyproject.toml"), "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    first = PROGRAM.count("\n") + 1
    lines = {int(line.split(":")[1]) for line in done.stdout.splitlines() if line.startswith("program.py:")}
    assert lines == set(range(first, first + len(WRONG))), done.stdout
