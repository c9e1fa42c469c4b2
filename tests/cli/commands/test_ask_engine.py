"""Which prompt engine ``ask`` asks for: weights made for one short prompt take longer than they save."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llava_edge.runtime import load, model
from llava_edge.runtime.errors import OptionError
from support.command_line import run_here

SIGN = str(Path(__file__).parents[3] / "examples" / "sign.png")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["Who?"], "llama.cpp"),
        (["Who?", "--system", "Be brief. " * 180], "llama.cpp"),
        (["Who?", "--system", "Be brief. " * 220], "auto"),
        (["写" * 600], "llama.cpp"),
        (["写" * 700], "auto"),
        ([SIGN, "Who?"], "auto"),
        ([SIGN, "Who?", "--detail", "low"], "auto"),
        ([SIGN, "Who?", "--picture-tokens", "400"], "llama.cpp"),
        ([SIGN, SIGN, "Who?", "--picture-tokens", "400"], "auto"),
        ([SIGN, "Who?", "--picture-tokens", "18%"], "auto"),
        ([SIGN, "Who?", "--picture-tokens", "16%"], "llama.cpp"),
        ([SIGN, "Who?", "--picture-tokens", "80%", "--detail", "low"], "llama.cpp"),
        ([SIGN, SIGN, "Who?", "--picture-tokens", "80%", "--detail", "low"], "auto"),
        (["Who?", "--prompt-engine", "onnxruntime"], "onnxruntime"),
        (["Who?", "--prepare"], "auto"),
        ([SIGN, "Who?", "--prompt-engine", "llama.cpp"], "llama.cpp"),
    ],
)
def test_a_short_prompt_is_llama_cpps(words: list[str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(*_: Any, prompt_engine: str, **__: Any) -> None:
        asked.append(prompt_engine)
        raise OptionError(expected="no more", got="enough", fix="stop")

    monkeypatch.setattr(model, "load", load)
    assert run_here("ask", *words)[0] != 0
    assert asked == [expected]


def test_it_is_said() -> None:
    _, _, said = run_here("ask", "Who?", "--max-tokens", "1", "-v")
    assert "prompts llama.cpp: making weights for a prompt of some 1 positions, as estimated from its length" in said
    _, _, said = run_here("ask", "Who?", "--max-tokens", "1", "-v", "--prompt-engine", "llama.cpp", "--prepare")
    assert "making weights" not in said
    assert "--prepare has no effect with --prompt-engine llama.cpp" in said


def test_a_full_context_names_options_of_the_command() -> None:
    status, _, err = run_here("ask", SIGN, "Who?", "--context", "100")
    assert status == 1
    assert err.endswith(
        "; shorten the question, or give fewer pictures, or --detail low, or --picture-tokens 25% (lossy), or a larger "
        "--context\n"
    )
    assert run_here("ask", SIGN, "Who?", "--context", "100", "--picture-tokens", "25%")[0] == 0
    assert run_here("ask", "Who? " * 4000)[2].endswith("; shorten the question\n")


def test_a_prompt_that_was_not_read_has_no_reader() -> None:
    from llava_edge.cli.terminal.answers import stages

    with load(threads=1) as loaded:
        answer = loaded.ask("Who?", max_tokens=1)
        assert f"{answer.prompt_tokens} positions by llama.cpp" in "".join(stages(answer, loaded))
        halves = replace(answer, prompt_tokens=100, prompt_engine_tokens=80)
        assert "100 positions, 80 by onnxruntime and 20 by llama.cpp" in "".join(stages(halves, loaded))
        stopped = replace(answer, tokens=(), finish_reason="cancel")
        assert f"stopped within {answer.prompt_tokens} positions" in "".join(stages(stopped, loaded))
