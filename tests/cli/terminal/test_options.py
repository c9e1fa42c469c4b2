"""What the runtime declares is what a command takes, and what a command takes is what the runtime gets."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest
import typer
import typer.main
from llava_edge.cli.main import app
from llava_edge.cli.terminal.options import Command, shares, with_options
from llava_edge.runtime.errors import OptionError
from llava_edge.runtime.options import GenerationOptions, LoadOptions, declared
from support.command_line import run_here

LOADING: dict[str, tuple[list[str], Any]] = {
    "threads": (["--threads", "2"], 2),
    "context": (["--context", "300"], 300),
    "providers": (["--provider", "cuda:1", "--provider", "cpu"], ("cuda:1", "cpu")),
    "device": (["--device", "cpu"], "cpu"),
    "gpu_layers": (["--gpu-layers", "7"], 7),
    "split_mode": (["--split-mode", "row"], "row"),
    "main_gpu": (["--main-gpu", "1"], 1),
    "kv_type_k": (["--kv-type", "bf16"], "bf16"),
    "kv_type_v": ([], "bf16"),
    "flash_attention": (["--no-flash-attention"], False),
    "workers": (["--worker", "a:1", "--worker", "b:2"], ("a:1", "b:2")),
    "tensor_split": (["--tensor-split", "3,1"], (3.0, 1.0)),
    "isolate": (["--isolate"], "llm"),
    "repack": (["--no-repack"], False),
    "prompt_engine": (["--prompt-engine", "onnxruntime"], "onnxruntime"),
    "prepare": (["--no-prepare"], False),
    "cache": (["--cache", "kept"], "kept"),
    "cache_pictures": (["--cache-pictures", "1000"], 1000),
    "cache_states": (["--cache-states", "2000"], 2000),
    "cache_min_free_disk": (["--cache-min-free-disk", "3000"], 3000),
    "cache_min_positions": (["--cache-min-positions", "40"], 40),
}
SAMPLING: dict[str, tuple[list[str], Any]] = {
    "max_tokens": (["--max-tokens", "9"], 9),
    "temperature": (["--temperature", "0.5"], 0.5),
    "seed": (["--seed", "3"], 3),
    "top_k": (["--top-k", "5"], 5),
    "top_p": (["--top-p", "0.5"], 0.5),
    "min_p": (["--min-p", "0.1"], 0.1),
    "repeat_penalty": (["--repeat-penalty", "1.1"], 1.1),
    "stop": (["--stop", "a", "--stop", "b,c"], ("a", "b,c")),
    "detail": (["--detail", "low"], "low"),
    "picture_tokens": (["--picture-tokens", "12.50%"], "12.5%"),
    "schema": (["--schema", '{"type": "integer"}'], '{"type": "integer"}'),
    "regex": ([], None),  # at most one of the three
    "grammar": ([], None),
}
LINE = [word for given, _ in (LOADING | SAMPLING).values() for word in given]
LOADED = LoadOptions(**{name: value for name, (_, value) in LOADING.items()})
SAMPLED = GenerationOptions(**{name: value for name, (_, value) in SAMPLING.items()})


def test_nothing_declared_is_left_out_here() -> None:
    assert list(LOADING) == [name for name, option in declared(LoadOptions).items() if not option.in_python_only]
    assert list(SAMPLING) == list(declared(GenerationOptions))


def test_a_command_gets_the_values() -> None:
    taken: list[Any] = []
    small = typer.Typer()

    @small.command(cls=Command)
    @with_options
    def command(name: str, *, sampling: GenerationOptions, loud: bool = False, loading: LoadOptions) -> None:
        taken.append((name, sampling, loud, loading))

    small(["me", *LINE, "--loud"], standalone_mode=False)
    small(["you"], standalone_mode=False)
    assert taken == [("me", SAMPLED, True, LOADED), ("you", GenerationOptions(), False, LoadOptions())]


class Recorded:
    """In place of a model: keeps what it is loaded and asked with."""

    turns: tuple[object, ...] = ()

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}
        self.asked: dict[str, Any] = {}
        self.answer = None

    def load(self, path: object, **options: Any) -> contextlib.AbstractContextManager[Recorded]:
        self.loaded = options
        return contextlib.nullcontext(self)

    def chat(self, *, system: str | None) -> Recorded:
        return self

    def stream(self, question: str, **options: Any) -> list[str]:
        self.asked = {name: value for name, value in options.items() if name in declared(GenerationOptions)}
        return []


@pytest.mark.parametrize("words", [["ask", "What?"], ["chat"]])
def test_ask_and_chat_hand_all_of_it_on(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = Recorded()
    monkeypatch.setattr("llava_edge.runtime.model.load", model.load)
    monkeypatch.setattr("sys.stdin", io.StringIO("What?\n/quit\n"))
    with contextlib.suppress(AssertionError):  # 'ask' misses the answer, which nobody gave
        app([*words, *LINE], standalone_mode=False)
    assert model.loaded.pop("on_load") is not None
    assert model.loaded == vars(LOADED)
    assert model.asked == vars(SAMPLED)


@pytest.mark.parametrize("name", ["ask", "chat"])
def test_a_value_out_of_range_is_refused_before_anything_is_loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava_edge.runtime.model.load", lambda *_, **__: pytest.fail("loaded"))
    for line in (["--min-p", "2"], ["--threads", "-1"], ["--kv-type", "q9"], ["--tensor-split", "3:1"]):
        with pytest.raises(OptionError):
            app([name, "What?", *line], standalone_mode=False)


def test_defaults_are_shown_where_they_say_something() -> None:
    group: Any = typer.main.get_command(app)
    shown = {option.name: option.show_default for option in group.commands["ask"].params}
    assert shown["top_k"]
    assert not shown["threads"]


def test_shares() -> None:
    assert shares("2,1,1") == (2.0, 1.0, 1.0)
    assert shares(None) == ()


def test_an_option_of_the_command_itself_wins() -> None:
    taken: list[Any] = []
    small = typer.Typer()

    @small.command()
    @with_options
    def command(seed: str = "mine", *, sampling: GenerationOptions) -> None:
        taken.append((seed, sampling))

    with contextlib.suppress(SystemExit):
        small(["--seed", "words", "--top-k", "5"])
    assert taken == [("words", GenerationOptions(top_k=5))]


@pytest.mark.parametrize(
    ("words", "isolate", "left"),
    [
        (["--isolate", "engine", "sign.png"], "engine", ["sign.png"]),
        (["sign.png", "--isolate", "llm"], "llm", ["sign.png"]),
        (["--isolate", "off", "sign.png"], False, ["sign.png"]),
        (["--isolate=engine", "llm"], "engine", ["llm"]),
        (["--isolate", "sign.png"], "llm", ["sign.png"]),
        (["sign.png", "--isolate", "--", "engine"], "llm", ["sign.png", "engine"]),
    ],
)
def test_the_word_behind_an_option_that_may_be_bare(words: list[str], isolate: object, left: list[str]) -> None:
    taken: list[Any] = []
    small = typer.Typer()

    @small.command(cls=Command)
    @with_options
    def command(names: list[str], *, loading: LoadOptions) -> None:
        taken.append((loading.isolate, names))

    small(words, standalone_mode=False)
    assert taken == [(isolate, left)]


def test_the_help_says_that_its_value_may_be_left_out() -> None:
    assert "--isolate[=llm|engine|off]" in run_here("ask", "--help")[1]
    assert "--isolate engine|llm|off" in run_here("serve", "--help")[1]
