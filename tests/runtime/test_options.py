"""Options are declared once: what type checkers, Python and the command line know of them is the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from llava_edge.runtime.errors import OptionError
from llava_edge.runtime.model import load
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


@pytest.mark.parametrize(
    ("kind", "name", "value", "said"),
    [
        (GenerationOptions, "max_tokens", 2.5, "max_tokens as a whole number"),
        (GenerationOptions, "max_tokens", True, "max_tokens from 1"),
        (GenerationOptions, "max_tokens", 0, "got 0; an answer has at least one token"),
        (GenerationOptions, "max_tokens", "x" * 5000, "max_tokens from 1"),
        (GenerationOptions, "max_tokens", np.array([1, 2]), "max_tokens from 1"),
        (GenerationOptions, "top_k", np.float64(2), "top_k as a whole number"),
        (GenerationOptions, "top_k", np.bool_(True), "top_k from 0"),
        (GenerationOptions, "temperature", "0", "temperature from 0 to 100"),
        (GenerationOptions, "temperature", None, "temperature from 0 to 100"),
        (GenerationOptions, "temperature", float("nan"), "temperature from 0 to 100"),
        (GenerationOptions, "stop", None, "stop as a tuple of strings; got None"),
        (GenerationOptions, "stop", 3, "stop as a tuple of strings; got 3"),
        (GenerationOptions, "stop", "###", "write stop=('###',)"),
        (GenerationOptions, "stop", ("a", 3), "stop as a tuple of strings"),
        (GenerationOptions, "stop", {"a"}, "stop as a tuple of strings"),
        (GenerationOptions, "stop", ("",), "an empty one, which would end every answer"),
        (LoadOptions, "threads", 1.5, "threads as a whole number"),
        (LoadOptions, "threads", None, "threads from 0"),
        (LoadOptions, "providers", "cpu", "write providers=('cpu',)"),
        (LoadOptions, "providers", None, "providers as a tuple of strings"),
        (LoadOptions, "workers", "a:1", "write workers=('a:1',)"),
        (LoadOptions, "workers", (1,), "workers as a tuple of strings"),
        (LoadOptions, "tensor_split", "2,1", "tensor_split as a tuple of numbers"),
        (LoadOptions, "tensor_split", (1, True), "tensor_split as a tuple of numbers"),
        (LoadOptions, "isolate", "yes", "isolate among llm, engine, off"),
        (LoadOptions, "flash_attention", 1, "flash_attention as True or False"),
        (LoadOptions, "device", None, "device among auto, cpu"),
        (LoadOptions, "device", ["cpu"], "device among auto, cpu"),
        (LoadOptions, "kv_type_k", np.array(["f16", "f32"]), "a KV type among"),
    ],
)
def test_another_type_is_refused(kind: type[Any], name: str, value: Any, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        kind(**{name: value})
    assert said in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("number", [np.int8(3), np.int64(3), np.uint16(3), np.array(3), 3])
def test_numbers_of_numpy_are_numbers(number: Any) -> None:
    taken = GenerationOptions(max_tokens=number, seed=number, temperature=np.float32(0.5), stop=["a"])  # type: ignore[arg-type]
    assert taken == GenerationOptions(max_tokens=3, seed=3, temperature=0.5, stop=("a",))
    assert [type(value) for value in vars(taken).values()].count(int) == 3
    loaded = LoadOptions(threads=number, isolate=np.bool_(True), tensor_split=[number, 1])  # type: ignore[arg-type]
    assert loaded == LoadOptions(threads=3, isolate=True, tensor_split=(3, 1))
    assert loaded.isolate == "llm"


@pytest.mark.parametrize("path", ["", b"bundle", 3, [], Path])
def test_a_path_is_a_path(path: Any) -> None:
    with pytest.raises(OptionError, match="a bundle folder's path"):
        load(path)
